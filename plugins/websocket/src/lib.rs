//! Node-RED's WebSocket nodes: `websocket in`, `websocket out` and their configurations `websocket-listener` and
//! `websocket-client`.
//!
//! The host owns sockets, TLS, the HTTP server and the queues of what is to be sent; this library speaks the
//! WebSocket protocol on them. The map, in reading order: an `endpoint` is one configuration and what goes
//! through it, as a `listener` or as a `client`; its `users` are the `input` and `output` nodes that
//! refer to it; a `connection` is one live WebSocket; `payload` turns frames into messages and back;
//! `address`, `headers` and `handshake` are what a client needs to get connected.
#![forbid(unsafe_code)]

mod address;
mod client;
mod connection;
mod endpoint;
mod handshake;
mod headers;
mod input;
mod listener;
mod output;
mod payload;
mod settings;
mod users;

use client::WebSocketClient;
use input::WebSocketIn;
use listener::WebSocketListener;
use output::WebSocketOut;

flowbay_sdk::export_plugin!(WebSocketListener, WebSocketClient, WebSocketIn, WebSocketOut);
