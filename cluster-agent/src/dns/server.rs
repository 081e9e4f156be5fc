//! Packets and streams around [`respond`].
//!
//! What strangers can make it hold: by UDP nothing, because a datagram is answered before the next is read, and an
//! answer that the socket does not take at once is dropped. By TCP, so many connections, fewer of each address, each
//! with one request and one answer at a time, and each request and each answer with a deadline.

use super::message::{MAX_REQUEST, Transport, respond};
use super::metrics::DnsMetrics;
use super::zone::Zone;
use sealane_trust::acceptor;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How many tasks read datagrams: an answer takes microseconds, so two keep up with any cluster.
const READERS: usize = 2;
/// Open connections; one more is closed at once.
const CONNECTIONS: usize = 256;
/// Open connections of one address, so that one pod can not have them all.
const CONNECTIONS_EACH: usize = 32;
/// How long the next request on a connection may take to be there, whole.
const IDLE: Duration = Duration::from_secs(10);
/// How long an answer may take to be taken.
const WRITE: Duration = Duration::from_secs(5);
/// How long to rest when the system refuses to give a connection or a datagram.
const REST: Duration = Duration::from_millis(50);
/// How often a port is looked for that is free for both, where any will do.
const TRIES: usize = 16;

/// One address that is listened on, by UDP and TCP.
#[derive(Debug)]
pub struct Sockets {
    udp: UdpSocket,
    tcp: TcpListener,
    address: SocketAddr,
}

/// What answers are made of.
#[derive(Debug, Clone)]
pub struct Server {
    /// The zone; `None` until it is known.
    pub zone: watch::Receiver<Option<Arc<Zone>>>,
    /// Where queries are counted.
    pub metrics: Arc<DnsMetrics>,
}

impl Sockets {
    /// Listens; with port 0, on one that is free for both.
    ///
    /// # Errors
    /// When the address can not be had.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let mut tries = TRIES;
        loop {
            let tcp = acceptor::bind(address)?;
            let bound = tcp.local_addr()?;
            match UdpSocket::bind(bound).await {
                Ok(udp) => return Ok(Sockets { udp, tcp, address: bound }),
                Err(error) if address.port() != 0 || tries == 0 => return Err(error),
                Err(_) => tries -= 1,
            }
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Serves until stopped; what is being answered then is answered to its end.
pub async fn serve(sockets: Sockets, server: Server, stop: CancellationToken) {
    let Sockets { udp, tcp, .. } = sockets;
    let udp = Arc::new(udp);
    let tasks = TaskTracker::new();
    for _ in 0..READERS {
        tasks.spawn(datagrams(udp.clone(), server.clone(), stop.clone()));
    }
    accept(tcp, server, &tasks, stop).await;
    tasks.close();
    tasks.wait().await;
}

impl Server {
    fn respond(&self, packet: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let zone = self.zone.borrow().clone();
        let Some(reply) = respond(packet, zone.as_deref(), transport, rand::random()) else {
            self.metrics.dropped.inc();
            return None;
        };
        self.metrics.count(transport, reply.kind, reply.code);
        Some(reply.bytes)
    }
}

async fn datagrams(socket: Arc<UdpSocket>, server: Server, stop: CancellationToken) {
    let mut buffer = vec![0; MAX_REQUEST];
    loop {
        let received = tokio::select! {
            () = stop.cancelled() => return,
            received = socket.recv_from(&mut buffer) => received,
        };
        match received {
            Ok((length, from)) => {
                if let Some(reply) = server.respond(&buffer[..length], Transport::Udp)
                    && let Err(error) = socket.try_send_to(&reply, from)
                {
                    // The client asks again.
                    tracing::debug!(%error, %from, "a DNS answer could not be sent");
                }
            }
            Err(error) => {
                tracing::debug!(%error, "can not receive a DNS datagram");
                tokio::time::sleep(REST).await;
            }
        }
    }
}

async fn accept(listener: TcpListener, server: Server, tasks: &TaskTracker, stop: CancellationToken) {
    let open = Open::default();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, from)) => {
                let Some(place) = open.take(from.ip()) else {
                    server.metrics.refused.inc();
                    continue;
                };
                let (server, stop) = (server.clone(), stop.clone());
                tasks.spawn(async move {
                    let _place = place;
                    if let Err(error) = converse(stream, &server, IDLE, &stop).await {
                        tracing::debug!(%error, %from, "a DNS connection ended with an error");
                    }
                });
            }
            Err(error) => {
                tracing::debug!(%error, "can not accept a DNS connection");
                tokio::time::sleep(REST).await;
            }
        }
    }
}

/// Answers one request after the other (RFC 7766), until the client ends, is silent for too long, or sends what can not
/// be answered.
async fn converse(
    mut stream: TcpStream,
    server: &Server,
    idle: Duration,
    stop: &CancellationToken,
) -> io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        let read = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            read = tokio::time::timeout(idle, read(&mut stream, &mut buffer)) => read,
        };
        match read {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) | Err(_) => return Ok(()),
            Ok(Err(error)) => return Err(error),
        }
        let Some(reply) = server.respond(&buffer, Transport::Tcp) else { return Ok(()) };
        let length = u16::try_from(reply.len()).map_err(io::Error::other)?;
        let framed = [&length.to_be_bytes(), reply.as_slice()].concat();
        tokio::time::timeout(WRITE, stream.write_all(&framed)).await??;
    }
}

/// Reads one request; says false at the end of the stream, or when it would be too large.
async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<bool> {
    let length = match stream.read_u16().await {
        Ok(length) => usize::from(length),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
        Err(error) => return Err(error),
    };
    if length > MAX_REQUEST {
        return Ok(false);
    }
    buffer.resize(length, 0);
    stream.read_exact(buffer).await?;
    Ok(true)
}

/// The open connections, by address.
#[derive(Debug, Clone, Default)]
struct Open(Arc<Mutex<BTreeMap<IpAddr, usize>>>);

/// The place of one connection; free again when it is dropped.
#[derive(Debug)]
struct Place {
    open: Open,
    of: IpAddr,
}

impl Open {
    fn take(&self, of: IpAddr) -> Option<Place> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = counts.values().sum();
        let own = counts.get(&of).copied().unwrap_or_default();
        if all >= CONNECTIONS || own >= CONNECTIONS_EACH {
            return None;
        }
        counts.insert(of, own + 1);
        Some(Place { open: self.clone(), of })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.open.0.lock().unwrap_or_else(PoisonError::into_inner);
        match counts.get_mut(&self.of) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(counts.remove(&self.of)),
        }
    }
}

#[cfg(test)]
mod tests;
