//! Node-RED's WebSocket nodes: `websocket in`, `websocket out` and their configurations `websocket-listener` and
//! `websocket-client`.
//!
//! The host owns sockets, TLS, the HTTP server and the queues of what is to be sent; this library speaks the
//! WebSocket protocol on them. The map, in reading order: an `endpoint` is one configuration and what goes
//! through it, as a `listener` or as a `client`; its `users` are the `input` and `output` nodes that
//! refer to it; a `connection` is one live WebSocket; `payload` turns frames into messages and back, and `session` is
//! what they call the connection; `control` is what messages can ask for besides being sent. `settings` and `options`
//! read properties, `metrics` counts. `origin` and `auth` are who may connect to a listener;
//! `address`, `headers` and `handshake` are what a client needs to get connected.
#![forbid(unsafe_code)]

mod address;
mod auth;
mod backlog;
mod backoff;
mod client;
mod client_settings;
mod connection;
mod control;
mod endpoint;
mod farewells;
mod handshake;
mod headers;
mod input;
mod link;
mod listener;
mod metrics;
mod options;
mod origin;
mod output;
mod payload;
mod session;
mod settings;
mod users;
mod waiting;

use client::WebSocketClient;
use input::WebSocketIn;
use listener::WebSocketListener;
use output::WebSocketOut;

flowbay_sdk::export_plugin!(WebSocketListener, WebSocketClient, WebSocketIn, WebSocketOut);
