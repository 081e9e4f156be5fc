//! A TCP relay that records every byte it carries, both ways: a wire tap for proofs of encryption.

use anyhow::{Context, Result};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// All that one relay records; beyond it the record is marked as cut short, and proves nothing any more.
const MAX_RECORD: usize = 64 * 1024 * 1024;

/// A running relay. Dropping it ends it and its connections.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    target: SocketAddr,
    record: Arc<Mutex<Record>>,
    blocked: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// What passed, each direction of each connection by itself.
#[derive(Debug, Default)]
struct Record {
    streams: Vec<Vec<u8>>,
    total: usize,
    cut: bool,
}

/// What a relay saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Connections that passed.
    pub connections: usize,
    /// Bytes that passed, both ways.
    pub bytes: usize,
    /// Whether the sought text was among them.
    pub found: bool,
}

impl Relay {
    /// Listens on `address` (port 0 for any) and carries every connection to `target`.
    ///
    /// # Errors
    /// When the address can not be listened on.
    pub async fn start(address: SocketAddr, target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("the relay can not listen on {address}"))?;
        let address = listener.local_addr().context("the relay has no address")?;
        let record = Arc::<Mutex<Record>>::default();
        let blocked = watch::Sender::new(false);
        let task = tokio::spawn(accept(listener, target, Arc::clone(&record), blocked.subscribe()));
        Ok(Relay { address, target, record, blocked, task })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it carries to.
    #[must_use]
    pub fn target(&self) -> SocketAddr {
        self.target
    }

    /// Stops carrying anything, or goes on with it. Nothing is closed: as where packets are dropped, each side only
    /// hears no more of the other.
    pub fn block(&self, blocked: bool) {
        self.blocked.send_replace(blocked);
    }

    /// Looks for a text in everything that passed so far.
    ///
    /// # Errors
    /// When the record was cut short, so that its silence proves nothing.
    pub fn look_for(&self, text: &[u8]) -> Result<Seen> {
        let record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        anyhow::ensure!(
            !record.cut,
            "more than {MAX_RECORD} bytes passed the relay: its record is not whole"
        );
        let found = record.streams.iter().any(|s| s.windows(text.len()).any(|w| w == text));
        Ok(Seen { connections: record.streams.len() / 2, bytes: record.total, found })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(
    listener: TcpListener,
    target: SocketAddr,
    record: Arc<Mutex<Record>>,
    blocked: watch::Receiver<bool>,
) {
    // Ended with this task, so that a dropped relay cuts its connections.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                connections.spawn(carry(client, target, Arc::clone(&record), blocked.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn carry(
    client: TcpStream,
    target: SocketAddr,
    record: Arc<Mutex<Record>>,
    mut blocked: watch::Receiver<bool>,
) {
    open_again(&mut blocked).await;
    let Ok(server) = TcpStream::connect(target).await else { return };
    // A tap must not slow down what it hears.
    if client.set_nodelay(true).and_then(|()| server.set_nodelay(true)).is_err() {
        return;
    }
    let (up, down) = {
        let mut record = record.lock().unwrap_or_else(PoisonError::into_inner);
        record.streams.extend([Vec::new(), Vec::new()]);
        (record.streams.len() - 2, record.streams.len() - 1)
    };
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    tokio::join!(
        copy(from_client, to_server, &record, up, blocked.clone()),
        copy(from_server, to_client, &record, down, blocked),
    );
}

/// Waits while the relay is blocked. Where it was dropped, its connections are too.
async fn open_again(blocked: &mut watch::Receiver<bool>) {
    let _ = blocked.wait_for(|blocked| !blocked).await;
}

async fn copy(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    record: &Mutex<Record>,
    stream: usize,
    mut blocked: watch::Receiver<bool>,
) {
    let mut buffer = vec![0u8; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        open_again(&mut blocked).await;
        record.lock().unwrap_or_else(PoisonError::into_inner).add(stream, &buffer[..read]);
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
    open_again(&mut blocked).await;
    let _ = to.shutdown().await;
}

impl Record {
    fn add(&mut self, stream: usize, bytes: &[u8]) {
        self.total += bytes.len();
        if self.total > MAX_RECORD {
            self.cut = true;
        } else if let Some(stream) = self.streams.get_mut(stream) {
            stream.extend_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[tokio::test]
    async fn plain_text_is_found_also_across_writes() {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let server = TcpListener::bind(any).await.unwrap();
        let relay = Relay::start(any, server.local_addr().unwrap()).await.unwrap();
        let mut client = TcpStream::connect(relay.address()).await.unwrap();
        let (mut served, _) = server.accept().await.unwrap();
        client.write_all(b"the mar").await.unwrap();
        let mut got = [0u8; 7];
        served.read_exact(&mut got).await.unwrap();
        client.write_all(b"ker").await.unwrap();
        client.shutdown().await.unwrap();
        let mut rest = Vec::new();
        served.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"ker");
        assert_eq!(relay.look_for(b"marker").unwrap(), Seen { connections: 1, bytes: 10, found: true });
        assert!(!relay.look_for(b"another").unwrap().found);
    }

    #[tokio::test]
    async fn a_blocked_relay_closes_nothing_and_loses_nothing() {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let server = TcpListener::bind(any).await.unwrap();
        let relay = Relay::start(any, server.local_addr().unwrap()).await.unwrap();
        let mut client = TcpStream::connect(relay.address()).await.unwrap();
        let (mut served, _) = server.accept().await.unwrap();
        relay.block(true);
        client.write_all(b"late").await.unwrap();
        client.shutdown().await.unwrap();
        let mut got = Vec::new();
        let silence = std::time::Duration::from_millis(100);
        let early = tokio::time::timeout(silence, served.read_to_end(&mut got)).await;
        assert!(early.is_err() && got.is_empty(), "{early:?} {got:?}");
        relay.block(false);
        served.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"late");
    }
}
