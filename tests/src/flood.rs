//! Strangers: connections that say nothing, garbage, or the right thing far too slowly.

use anyhow::{Context, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// How long a connection may take: room for the kernel's second and third try, when a queue was full for a moment.
const CONNECT: Duration = Duration::from_secs(10);

/// Raises the number of open files to what the machine allows, and says how many that is.
///
/// # Errors
/// When it can not be raised.
pub fn raise_open_files() -> Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    let new = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, new).context("can not raise the number of open files")?;
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

/// Connects from an address of one's own, so that nobody else is taken for the stranger.
///
/// # Errors
/// When the connection is refused.
pub async fn connect_from(source: IpAddr, target: SocketAddr) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4().context("no socket")?;
    socket.set_reuseaddr(true).context("no reuse")?;
    socket.bind(SocketAddr::new(source, 0)).context("can not bind the source")?;
    let connect = tokio::time::timeout(CONNECT, socket.connect(target));
    connect.await.context("not accepted in time")?.context("refused")
}

/// Opens up to `count` connections that never say anything, some hundreds at a time: those that were accepted, and why
/// others were not.
pub async fn half_open(
    source: IpAddr,
    target: SocketAddr,
    count: usize,
) -> (Vec<TcpStream>, BTreeMap<String, usize>) {
    let mut open = Vec::with_capacity(count);
    let mut refused = BTreeMap::new();
    let mut left = count;
    while left > 0 {
        let batch = left.min(500);
        left -= batch;
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..batch {
            tasks.spawn(connect_from(source, target));
        }
        while let Some(done) = tasks.join_next().await {
            match done.expect("connecting does not panic") {
                Ok(stream) => open.push(stream),
                Err(why) => *refused.entry(format!("{why:#}")).or_default() += 1,
            }
        }
    }
    (open, refused)
}

/// What became of a connection on which a stranger spoke.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The peer ended it, after saying this many bytes.
    Ended(usize),
    /// It is still open.
    Open,
}

/// Says something, then reads until the peer ends the connection or the time is over.
///
/// # Errors
/// When there is no connection at all.
pub async fn say(source: IpAddr, target: SocketAddr, bytes: &[u8], limit: Duration) -> Result<Ending> {
    let mut stream = connect_from(source, target).await?;
    // The peer may end it in the middle of what is said.
    let _ = tokio::time::timeout(limit, stream.write_all(bytes)).await;
    let mut answer = Vec::new();
    match tokio::time::timeout(limit, stream.read_to_end(&mut answer)).await {
        Ok(_) => Ok(Ending::Ended(answer.len())),
        Err(_) => Ok(Ending::Open),
    }
}

/// Says one byte a second, and gives how long the peer bore it.
///
/// # Errors
/// When there is no connection at all, or the peer bears it for longer than the limit.
pub async fn drip(source: IpAddr, target: SocketAddr, bytes: &[u8], limit: Duration) -> Result<Duration> {
    let mut stream = connect_from(source, target).await?;
    let start = std::time::Instant::now();
    let mut byte = [0u8; 64];
    for one in bytes.iter().cycle() {
        if stream.write_all(&[*one]).await.is_err() {
            return Ok(start.elapsed());
        }
        match tokio::time::timeout(Duration::from_secs(1), stream.read(&mut byte)).await {
            Ok(Ok(0) | Err(_)) => return Ok(start.elapsed()),
            _ if start.elapsed() > limit => anyhow::bail!("still open after {limit:?}"),
            _ => {}
        }
    }
    anyhow::bail!("nothing to say")
}
