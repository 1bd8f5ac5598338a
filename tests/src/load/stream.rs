//! A socket that never waits, plain or inside TLS.

use std::io::{self, Read, Write};
use std::sync::Arc;

use mio::net::TcpStream;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};

/// A connected stream.
#[derive(Debug)]
pub enum Stream {
    /// Bytes as they are.
    Plain(TcpStream),
    /// Either side of TLS.
    Tls(Box<Connection>, TcpStream),
}

impl Stream {
    /// The server's side of TLS on a connection that was accepted.
    ///
    /// # Panics
    /// When the configuration is not complete.
    pub fn tls(tcp: TcpStream, config: Arc<ServerConfig>) -> Stream {
        let connection = ServerConnection::new(config).expect("the configuration is complete");
        Stream::Tls(Box::new(connection.into()), tcp)
    }

    /// The client's side of TLS on a connection that is being made to a server called `localhost`.
    ///
    /// # Panics
    /// When the configuration is not complete.
    pub fn tls_client(tcp: TcpStream, config: Arc<ClientConfig>) -> Stream {
        let name = ServerName::try_from("localhost").expect("a name");
        let connection = ClientConnection::new(config, name).expect("the configuration is complete");
        Stream::Tls(Box::new(connection.into()), tcp)
    }

    /// Writes out what TLS has ready; whether all of it went.
    fn flush_tls(&mut self) -> io::Result<bool> {
        if let Stream::Tls(connection, tcp) = self {
            while connection.wants_write() {
                match connection.write_tls(tcp) {
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(true)
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self {
                Stream::Plain(tcp) => return tcp.read(buffer),
                Stream::Tls(connection, tcp) => {
                    match connection.reader().read(buffer) {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        result => return result,
                    }
                    if connection.read_tls(tcp)? == 0 {
                        return Ok(0);
                    }
                    connection.process_new_packets().map_err(io::Error::other)?;
                }
            }
            self.flush_tls()?;
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // TLS takes everything; nothing more is given to it before that went out.
        if !self.flush_tls()? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        match self {
            Stream::Plain(tcp) => tcp.write(bytes),
            Stream::Tls(connection, _) => {
                let taken = connection.writer().write(bytes)?;
                self.flush_tls()?;
                Ok(taken)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.flush_tls().map(|_| ())
    }
}
