//! What a configuration counts, for `GET /metrics`.

use flowbay_sdk::{Counter, Ctx, Gauge};

/// The numbers of one configuration, whatever its role. They go on over hot swaps, and leave with its node.
pub struct Metrics {
    /// Open connections.
    pub connections: Gauge,
    /// Connections so far. (Not `connections_total`: to Prometheus that is the counter `connections`, and the gauge above
    /// would be of the same name.)
    pub opened: Counter,
    /// Data messages that arrived.
    pub messages_received: Counter,
    /// Data messages given to a connection to be sent.
    pub messages_sent: Counter,
    /// Payload bytes of those that arrived.
    pub bytes_received: Counter,
    /// Payload bytes of those given to a connection.
    pub bytes_sent: Counter,
    /// Upgrades that were refused, and connections that were ended at once because all places were taken.
    pub refused: Counter,
    /// Messages for a session that there is not; on a client also those that it could not send or keep.
    pub undelivered: Counter,
    /// Connections that ended because the peer broke the protocol or went over a limit.
    pub protocol_errors: Counter,
}

impl Metrics {
    /// The metrics of the node whose context this is.
    pub fn new(ctx: &Ctx) -> Self {
        Self {
            connections: ctx.gauge("websocket_connections", "Open WebSocket connections"),
            opened: ctx.counter("websocket_connects_total", "WebSocket connections opened so far"),
            messages_received: ctx.counter("websocket_messages_received_total", "Data messages received"),
            messages_sent: ctx.counter("websocket_messages_sent_total", "Data messages sent"),
            bytes_received: ctx
                .counter("websocket_bytes_received_total", "Payload bytes of data messages received"),
            bytes_sent: ctx.counter("websocket_bytes_sent_total", "Payload bytes of data messages sent"),
            refused: ctx.counter("websocket_refused_total", "Upgrades refused by the listener"),
            undelivered: ctx.counter(
                "websocket_undelivered_total",
                "Messages that were for no session, or that a client could neither send nor keep",
            ),
            protocol_errors: ctx.counter(
                "websocket_protocol_errors_total",
                "Connections ended because the peer broke the protocol or a limit",
            ),
        }
    }
}
