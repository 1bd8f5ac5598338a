//! A tokio runtime of the node's own, for what the host has no sockets for, or for a library that insists on one. Needs the
//! SDK's feature `tokio`.
//!
//! The node receives UDP datagrams. Try it: `sdk/examples/run udp`, and `echo hello | nc -u -w1 localhost 7071`.

use std::{io::ErrorKind, time::Duration};

use flowbay_sdk::{Blob, Role, object, prelude::*};
use serde::Deserialize;
use tokio::net::UdpSocket;

#[derive(Deserialize)]
struct Udp {
    port: u16,
}

/// The largest datagram of UDP.
const MAX_BYTES: usize = 65_535;

#[node("udp receiver", role = Role::Source, category = "network", outputs = 1)]
impl Node for Udp {
    type Config = Udp;

    fn new(config: Udp, _ctx: &Ctx) -> Result<Self, Error> {
        Ok(config)
    }

    async fn run(&self, ctx: &Ctx) -> Result<(), Error> {
        // The runtime is started when it is first asked for, and ends with the node: its tasks are dropped, its thread is
        // gone before the library is unloaded. `ctx.tokio()` is its handle, for libraries that spawn by themselves.
        ctx.spawn_on_tokio(receive(self.port, ctx.clone())).await?
    }

    // Sockets of tokio's are the plugin's own and do not move. In a hot swap the newer code opens its own; what arrives in
    // between is lost, which UDP allows. (What may not be lost goes over the host's: see `lines`.)
    fn save(&self) -> Result<Option<Value>, Error> {
        Ok(Some(Value::Null))
    }
}

async fn receive(port: u16, ctx: Ctx) -> Result<(), Error> {
    let socket = bind(port).await?;
    ctx.status(
        Status::new().fill("green").shape("dot").text(&format!("port {}", socket.local_addr()?.port())),
    );
    let mut bytes = vec![0; MAX_BYTES];
    loop {
        // A source, wherever it runs.
        ctx.ready().await;
        let (length, from) = socket.recv_from(&mut bytes).await?;
        let mut msg = Msg::with_payload(Blob::from(&bytes[..length]));
        msg.set("from", object!({ "ip": from.ip().to_string(), "port": from.port() }));
        ctx.send(msg);
    }
}

/// Tries again while the older code still has the port: the newer begins a moment before that ends.
async fn bind(port: u16) -> std::io::Result<UdpSocket> {
    let mut attempts = 0;
    loop {
        match UdpSocket::bind(("127.0.0.1", port)).await {
            Err(error) if error.kind() == ErrorKind::AddrInUse && attempts < 50 => attempts += 1,
            bound => return bound,
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

export_plugin!(Udp);

#[cfg(test)]
mod tests {
    use flowbay_sdk::{testing::TestNode, value};

    use super::*;

    #[test]
    fn a_datagram_becomes_a_message() {
        let mut node = TestNode::<Udp>::new(value!({ "port": 0 }));
        let status = node.wait_for(|node| node.statuses().pop());
        let port: u16 = status["text"].as_str().unwrap()["port ".len()..].parse().unwrap();
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.send_to(b"hello", ("127.0.0.1", port)).unwrap();
        let sent = node.wait_for(|node| node.sent().pop());
        assert_eq!(sent.msg.payload().as_bytes(), Some(&b"hello"[..]));
        assert_eq!(sent.msg["from"]["port"], i64::from(sender.local_addr().unwrap().port()));
    }
}
