//! A server that stands in another's place, presents whatever chain it is given, and keeps what it is told.

use anyhow::{Context, Result};
use sealane_trust::rustls::ServerConfig;
use sealane_trust::tls::{self, ClientAuth, Identity};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// All that is kept of what was heard.
const MAX_HEARD: usize = 4 * 1024 * 1024;
/// How long one connection is listened to.
const LISTENED: Duration = Duration::from_secs(5);

/// What came to an impostor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heard {
    /// Handshakes that the other side finished: it took us for whom it looked for.
    pub believed: u64,
    /// Handshakes that the other side broke off.
    pub refused: u64,
    /// Every byte that was said after a handshake.
    pub bytes: Vec<u8>,
}

impl Heard {
    /// Whether something was said.
    #[must_use]
    pub fn has(&self, text: &[u8]) -> bool {
        self.bytes.windows(text.len()).any(|w| w == text)
    }
}

/// A running impostor. Dropping it ends it.
#[derive(Debug)]
pub struct Impostor {
    address: SocketAddr,
    alpn: Vec<u8>,
    presented: Arc<Mutex<Arc<ServerConfig>>>,
    heard: Arc<Mutex<Heard>>,
    task: JoinHandle<()>,
}

impl Impostor {
    /// Stands at an address, once whoever stood there has left it.
    ///
    /// # Errors
    /// When the address does not become free.
    pub async fn at(address: SocketAddr, identity: &Identity, alpn: &[u8]) -> Result<Self> {
        let bind = async || TcpListener::bind(address).await.map(Some).context("can not take the place");
        let (listener, _) = sealane::local::wait::until("the place is free", crate::PATIENCE, bind).await?;
        let address = listener.local_addr()?;
        let heard = Arc::<Mutex<Heard>>::default();
        let presented = Arc::new(Mutex::new(presenting(identity, alpn)));
        let task = tokio::spawn(accept(listener, Arc::clone(&presented), Arc::clone(&heard)));
        Ok(Impostor { address, alpn: alpn.to_vec(), presented, heard, task })
    }

    /// Presents another identity to whoever comes from now on.
    pub fn present(&self, identity: &Identity) {
        *self.presented.lock().unwrap_or_else(PoisonError::into_inner) = presenting(identity, &self.alpn);
    }

    /// Where it stands.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What came so far.
    #[must_use]
    pub fn heard(&self) -> Heard {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn presenting(identity: &Identity, alpn: &[u8]) -> Arc<ServerConfig> {
    tls::server_config(identity, ClientAuth::None, &[alpn])
}

async fn accept(listener: TcpListener, presented: Arc<Mutex<Arc<ServerConfig>>>, heard: Arc<Mutex<Heard>>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let acceptor = TlsAcceptor::from(Arc::clone(&presented.lock().unwrap_or_else(PoisonError::into_inner)));
                let listened = listen(stream, acceptor, Arc::clone(&heard));
                connections.spawn(tokio::time::timeout(LISTENED, listened));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn listen(stream: TcpStream, acceptor: TlsAcceptor, heard: Arc<Mutex<Heard>>) {
    let note =
        |change: &dyn Fn(&mut Heard)| change(&mut heard.lock().unwrap_or_else(PoisonError::into_inner));
    let Ok(mut stream) = acceptor.accept(stream).await else { return note(&|h| h.refused += 1) };
    note(&|h| h.believed += 1);
    let mut part = [0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut part).await {
        note(&|h| {
            let room = MAX_HEARD.saturating_sub(h.bytes.len());
            h.bytes.extend_from_slice(&part[..length.min(room)]);
        });
    }
}
