//! The server to compare with: an echo on tokio-tungstenite, as one writes it by hand.

use std::net::Ipv4Addr;

use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite;

use crate::error::Error;

/// Serves on `port` of the loopback address (0 picks one) and says on stderr which it is. Returns only on failure.
///
/// Two worker threads, like flowbay on the two cores the bars are stated for; everything else is the
/// libraries' default.
///
/// # Errors
/// The port is taken, or the system refuses threads or sockets.
pub fn run(port: u16) -> Result<(), Error> {
    let serving = || Error::io("serving with tokio-tungstenite");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(serving())?;
    runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.map_err(serving())?;
        eprintln!("listening on http://{}", listener.local_addr().map_err(serving())?);
        loop {
            let (stream, _) = listener.accept().await.map_err(serving())?;
            tokio::spawn(async move {
                // A client that goes away without a close frame is nobody's error here.
                let _ = echo(stream).await;
            });
        }
    })
}

async fn echo(stream: TcpStream) -> Result<(), tungstenite::Error> {
    stream.set_nodelay(true)?;
    let mut socket = tokio_tungstenite::accept_async(stream).await?;
    while let Some(message) = socket.next().await {
        let message = message?;
        if message.is_text() || message.is_binary() {
            socket.send(message).await?;
        }
    }
    Ok(())
}
