//! A load of WebSocket connections that leaves a server no easy moment, and that notices everything that goes wrong:
//! mixed sizes, fragmented messages with pings between their fragments, writes cut anywhere with pauses between them,
//! clients that stand still in the middle of a frame, clients that do not read, clients that come and go.
//!
//! All on one thread, with one event loop, so that it costs the machine little. What a peer sends is known from its
//! number ([`message`]), so every byte of every echo is checked.

pub mod message;
pub mod tls;

mod frames;
mod peer;
mod random;
mod stream;
mod tally;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

pub use message::Mode;
pub use tally::{EchoTimes, Tally};

use peer::{Habits, Manner, Peer, Turn};
use stream::Stream;

/// Which side of the connections the load is.
#[derive(Debug, Clone)]
pub enum Side {
    /// Clients of the server at this address; each connects to one of the paths.
    Clients(SocketAddr, Vec<(String, Mode)>),
    /// A server, at a port of its own choice, for clients that send back what they receive.
    Server {
        /// What those clients take messages for.
        mode: Mode,
        /// With TLS.
        tls: Option<Arc<rustls::ServerConfig>>,
    },
}

/// What the load is made of.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Which side it is.
    pub side: Side,
    /// Connections that stay. Of ten, one stands still in the middle of frames and one reads slowly.
    pub connections: usize,
    /// Besides them, connections that come and go. Only a load of clients has them.
    pub come_and_go: usize,
    /// Least and most bytes of a message, within [`message::SIZES`].
    pub sizes: (usize, usize),
    /// Mean pause between two writes on a connection.
    pub pause: Duration,
    /// Messages that a connection has in flight at most.
    pub in_flight: u64,
    /// With this, a load of clients speaks TLS.
    pub client_tls: Option<Arc<rustls::ClientConfig>>,
}

impl Plan {
    /// Clients of a server.
    pub fn clients(address: SocketAddr, paths: &[(&str, Mode)], connections: usize) -> Plan {
        let paths = paths.iter().map(|(path, mode)| ((*path).to_owned(), *mode)).collect();
        Plan::new(Side::Clients(address, paths), connections)
    }

    /// A server for so many clients.
    pub fn server(connections: usize, tls: Option<Arc<rustls::ServerConfig>>) -> Plan {
        Plan::new(Side::Server { mode: Mode::Payload, tls }, connections)
    }

    fn new(side: Side, connections: usize) -> Plan {
        Plan {
            side,
            connections,
            come_and_go: 0,
            sizes: message::SIZES,
            pause: Duration::from_millis(5),
            in_flight: 4,
            client_tls: None,
        }
    }
}

/// How long echoes may take at the end before they count as lost.
const DRAIN: Duration = if cfg!(test) { Duration::from_secs(1) } else { Duration::from_secs(20) };
/// Longest wait for an event, so that commands are heard.
const LONGEST_WAIT: Duration = Duration::from_millis(5);

enum Command {
    /// Give the echo times so far, and begin anew with them.
    Times(Sender<EchoTimes>),
    /// Stop sending, wait for what is in flight, and count what did not come.
    Stop,
}

/// A load that is running. Dropping it ends it.
#[derive(Debug)]
pub struct Load {
    commands: Sender<Command>,
    open: Arc<AtomicUsize>,
    echoed: Arc<AtomicU64>,
    swaps: Arc<AtomicU64>,
    address: Option<SocketAddr>,
    thread: Option<JoinHandle<Tally>>,
}

impl Load {
    /// Begins.
    ///
    /// # Errors
    /// The system has no socket or thread to give.
    pub fn start(plan: Plan) -> std::io::Result<Load> {
        let (commands, received) = channel();
        let (open, echoed, swaps) = (Arc::default(), Arc::default(), Arc::default());
        let poll = Poll::new()?;
        let listener = match plan.side {
            Side::Clients(..) => None,
            Side::Server { .. } => Some(TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0).into())?),
        };
        let address = listener.as_ref().map(TcpListener::local_addr).transpose()?;
        let mut running = Running {
            plan,
            poll,
            listener,
            peers: Vec::new(),
            next_number: 0,
            tally: Tally::default(),
            times: Vec::new(),
            commands: received,
            open: Arc::clone(&open),
            echoed: Arc::clone(&echoed),
            swaps: Arc::clone(&swaps),
            stop_at: None,
        };
        running.begin()?;
        let thread = std::thread::Builder::new().name("load".into()).spawn(move || running.run())?;
        Ok(Load { commands, open, echoed, swaps, address, thread: Some(thread) })
    }

    /// Where a load that is a server listens.
    ///
    /// # Panics
    /// When it is none.
    pub fn address(&self) -> SocketAddr {
        self.address.expect("only a server has an address")
    }

    /// How many of the connections that stay are open.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// How many echoes have come.
    pub fn echoed(&self) -> u64 {
        self.echoed.load(Ordering::Relaxed)
    }

    /// Says that a swap is over: who stands still for it goes on after the next but one.
    pub fn swapped(&self) {
        self.swaps.fetch_add(1, Ordering::Relaxed);
    }

    /// The echo times since the last call. `None` when the load has ended.
    pub fn take_times(&self) -> Option<EchoTimes> {
        let (sender, times) = channel();
        self.commands.send(Command::Times(sender)).ok()?;
        times.recv().ok()
    }

    /// Stops sending, waits for what is in flight, and says what came of it all.
    ///
    /// # Panics
    /// When the load's thread did.
    pub fn stop(mut self) -> Tally {
        let _ = self.commands.send(Command::Stop);
        let thread = self.thread.take().expect("it is taken once");
        thread.join().expect("the load does not panic")
    }
}

struct Running {
    plan: Plan,
    poll: Poll,
    listener: Option<TcpListener>,
    peers: Vec<Peer>,
    next_number: u32,
    tally: Tally,
    times: Vec<u32>,
    commands: Receiver<Command>,
    open: Arc<AtomicUsize>,
    echoed: Arc<AtomicU64>,
    swaps: Arc<AtomicU64>,
    /// Draining, until then.
    stop_at: Option<Instant>,
}

const LISTENER: Token = Token(usize::MAX);

impl Running {
    fn begin(&mut self) -> std::io::Result<()> {
        if let Some(listener) = &mut self.listener {
            self.poll.registry().register(listener, LISTENER, Interest::READABLE)?;
            return Ok(());
        }
        for index in 0..self.plan.connections {
            self.connect(index, manner_of(index))?;
        }
        for index in 0..self.plan.come_and_go {
            self.connect(self.plan.connections + index, Manner::ComesAndGoes)?;
        }
        Ok(())
    }

    fn habits(&self) -> Habits {
        Habits { sizes: self.plan.sizes, pause: self.plan.pause, in_flight: self.plan.in_flight }
    }

    /// Opens a connection in place `index` of the list.
    fn connect(&mut self, index: usize, manner: Manner) -> std::io::Result<()> {
        let Side::Clients(address, paths) = &self.plan.side else { return Ok(()) };
        let (path, mode) = &paths[index % paths.len()];
        let mut tcp = TcpStream::connect(*address)?;
        tcp.set_nodelay(true)?;
        self.poll.registry().register(&mut tcp, Token(index), Interest::READABLE | Interest::WRITABLE)?;
        let number = self.next_number;
        self.next_number += 1;
        self.tally.handshakes += 1;
        let stream = match &self.plan.client_tls {
            Some(config) => Stream::tls_client(tcp, Arc::clone(config)),
            None => Stream::Plain(tcp),
        };
        let peer = Peer::client(number, stream, manner, *mode, &address.to_string(), path);
        match self.peers.get_mut(index) {
            Some(place) => *place = peer,
            None => self.peers.push(peer),
        }
        Ok(())
    }

    fn accept(&mut self) -> std::io::Result<()> {
        let (Some(listener), Side::Server { mode, tls }) = (&self.listener, &self.plan.side) else {
            return Ok(());
        };
        loop {
            let mut tcp = match listener.accept() {
                Ok((tcp, _)) => tcp,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let index = self.peers.len();
            tcp.set_nodelay(true)?;
            self.poll.registry().register(&mut tcp, Token(index), Interest::READABLE | Interest::WRITABLE)?;
            self.tally.handshakes += 1;
            let number = self.next_number;
            self.next_number += 1;
            let stream = match tls {
                Some(config) => Stream::tls(tcp, Arc::clone(config)),
                None => Stream::Plain(tcp),
            };
            self.peers.push(Peer::server(number, stream, manner_of(index), *mode));
        }
    }

    fn run(mut self) -> Tally {
        if let Err(error) = self.serve() {
            self.tally.problem(format!("the load broke down: {error}"));
        }
        for peer in self.peers.iter().filter(|peer| !peer.is_over()) {
            self.tally.lost += peer.in_flight();
            if !peer.is_idle() {
                self.tally.problem(format!("at the end: {}", peer.awaits()));
            }
        }
        self.tally
    }

    fn serve(&mut self) -> std::io::Result<()> {
        let habits = self.habits();
        let mut events = Events::with_capacity(1024);
        loop {
            let draining = self.stop_at.is_some();
            let mut turn = Turn { now: Instant::now(), swaps: self.swaps.load(Ordering::Relaxed), draining };
            let wake = self.peers.iter().filter_map(|peer| peer.wakes(&turn, &habits)).min();
            let wait =
                wake.map_or(LONGEST_WAIT, |wake| wake.saturating_duration_since(turn.now).min(LONGEST_WAIT));
            match self.poll.poll(&mut events, Some(wait)) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            for event in &events {
                if event.token() == LISTENER {
                    self.accept()?;
                } else if let Some(peer) = self.peers.get_mut(event.token().0) {
                    peer.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
                    peer.writable |= event.is_writable();
                }
            }
            turn.now = Instant::now();
            for peer in self.peers.iter_mut().filter(|peer| !peer.is_over()) {
                peer.turn(&turn, &habits, &mut self.tally, &mut self.times);
            }
            if !draining {
                for index in 0..self.peers.len() {
                    let peer = &self.peers[index];
                    if peer.manner == Manner::ComesAndGoes && peer.is_over() {
                        self.connect(index, Manner::ComesAndGoes)?;
                    }
                }
            }
            let staying = self.peers.iter().filter(|peer| peer.manner != Manner::ComesAndGoes);
            self.open.store(staying.filter(|peer| peer.is_open()).count(), Ordering::Relaxed);
            self.echoed.store(self.tally.echoed, Ordering::Relaxed);
            match self.commands.try_recv() {
                Ok(Command::Times(to)) => {
                    let _ = to.send(EchoTimes(std::mem::take(&mut self.times)));
                }
                Ok(Command::Stop) => self.stop_at = Some(Instant::now() + DRAIN),
                Err(TryRecvError::Empty) => {}
                // Nobody is interested any more.
                Err(TryRecvError::Disconnected) if self.stop_at.is_none() => return Ok(()),
                Err(TryRecvError::Disconnected) => {}
            }
            if let Some(end) = self.stop_at
                && (self.peers.iter().all(Peer::is_settled) || Instant::now() >= end)
            {
                return Ok(());
            }
        }
    }
}

impl Peer {
    /// Whether nothing more is to come of it.
    fn is_settled(&self) -> bool {
        self.is_idle() && (self.is_over() || self.manner != Manner::ComesAndGoes)
    }
}

fn manner_of(index: usize) -> Manner {
    match index % 10 {
        4 => Manner::Stalls,
        8 => Manner::ReadsSlowly,
        _ => Manner::Plain,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use tungstenite::protocol::WebSocketConfig;
    use tungstenite::{Message, WebSocket};

    use super::*;

    /// What came of a load of one connection to a server that passes each echo through `reply`, with its number; what
    /// that returns is sent, and `None` ends the connection.
    fn tally_against(reply: impl Fn(u64, Message) -> Option<Vec<Message>> + Send + 'static) -> Tally {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut plan = Plan::clients(listener.local_addr().unwrap(), &[("/", Mode::Payload)], 1);
        plan.pause = Duration::ZERO;
        plan.sizes = (16, 2_000);
        let server = std::thread::spawn(move || {
            let config = WebSocketConfig::default();
            let stream = listener.accept().unwrap().0;
            let mut socket: WebSocket<TcpStream> =
                tungstenite::accept_with_config(stream, Some(config)).unwrap();
            let mut number = 0;
            while let Ok(message) = socket.read() {
                if !message.is_text() && !message.is_binary() {
                    continue;
                }
                let Some(replies) = reply(number, message) else { return };
                number += 1;
                for message in replies {
                    if socket.send(message).is_err() {
                        return;
                    }
                }
            }
        });
        let load = Load::start(plan).unwrap();
        let enough = crate::harness::eventually_within(Duration::from_secs(20), || {
            (load.echoed() > 60 || load.open() == 0 && load.echoed() > 0).then_some(())
        });
        assert!(enough.is_some(), "{}", load.stop());
        let tally = load.stop();
        server.join().unwrap();
        tally
    }

    #[test]
    fn an_honest_echo_is_perfect() {
        let tally = tally_against(|_, echo| Some(vec![echo]));
        assert!(tally.is_perfect() && tally.pings > 0, "{tally}");
    }

    #[test]
    fn whatever_is_not_an_echo_is_found_and_called_by_its_name() {
        const AT: u64 = 30;
        let last = Arc::new(std::sync::Mutex::new(None));
        let doubled =
            tally_against(|n, echo| Some(if n == AT { vec![echo.clone(), echo] } else { vec![echo] }));
        assert_eq!((doubled.duplicated, doubled.lost), (1, 0), "{doubled}");
        let swapped = tally_against(move |n, echo| match n {
            AT => {
                *last.lock().unwrap() = Some(echo);
                Some(vec![])
            }
            n if n == AT + 1 => Some(vec![echo, last.lock().unwrap().take().unwrap()]),
            _ => Some(vec![echo]),
        });
        assert_eq!((swapped.reordered, swapped.lost), (1, 0), "{swapped}");
        let damaged = tally_against(|n, echo| match n {
            AT => {
                let mut bytes = echo.into_data().to_vec();
                *bytes.last_mut().unwrap() ^= 1;
                Some(vec![Message::binary(bytes)])
            }
            _ => Some(vec![echo]),
        });
        assert_eq!(damaged.corrupt, 1, "{damaged}");
        let closed = tally_against(|n, echo| (n < AT).then(|| vec![echo]));
        assert_eq!(closed.disconnects, 1, "{closed}");
        for tally in [doubled, swapped, damaged, closed] {
            assert!(!tally.is_perfect() && !tally.problems.is_empty(), "{tally}");
        }
    }

    #[test]
    fn an_echo_that_never_comes_is_lost() {
        let lost = tally_against(|n, echo| Some(if n == 30 { vec![] } else { vec![echo] }));
        assert_eq!((lost.lost, lost.corrupt, lost.duplicated), (1, 0, 0), "{lost}");
        assert!(!lost.is_perfect());
    }
}
