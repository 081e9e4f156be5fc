//! A TCP stream as the TLS library reads it: one large read for many records, into a buffer that is only lent.
//!
//! Law: a connection at rest holds no buffer of ours. A buffer is taken when the socket is readable, and given back
//! when its bytes are consumed. It also replays bytes that were read before TLS began (a ClientHello).

use socket2::{SockRef, TcpKeepalive};
use std::cell::RefCell;
use std::io;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What four full TLS records carry.
pub(crate) const PLAIN: usize = 4 * 16 * 1024;
/// The size of a lent buffer: four full TLS records as they are on the wire.
pub(crate) const LENT: usize = PLAIN + 4 * 22;
/// The most buffers that a worker keeps for the next one who asks.
const KEPT: usize = 32;
/// Silence before the peer is asked whether it lives.
const KEEPALIVE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

thread_local! {
    static POOL: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer of [`LENT`] bytes; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Lent(Box<[u8]>);

impl Lent {
    /// Takes one. Its content is whatever its last holder left.
    pub(crate) fn take() -> Self {
        let kept = POOL.try_with(|pool| pool.borrow_mut().pop()).ok().flatten();
        Lent(kept.unwrap_or_else(|| vec![0u8; LENT].into_boxed_slice()))
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.0);
        // A worker that is shutting down has no pool any more; the buffer is freed then.
        let _ = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            if pool.len() < KEPT {
                pool.push(buffer);
            }
        });
    }
}

impl Deref for Lent {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// Bytes of a lent buffer that are still to be consumed.
#[derive(Debug)]
pub(crate) struct Filled {
    buffer: Lent,
    at: usize,
    end: usize,
}

impl Filled {
    /// The first `end` bytes of a buffer.
    pub(crate) fn new(buffer: Lent, end: usize) -> Self {
        Filled { end: end.min(buffer.len()), buffer, at: 0 }
    }

    /// What is left.
    pub(crate) fn rest(&self) -> &[u8] {
        &self.buffer[self.at..self.end]
    }

    /// Marks bytes as consumed; true when none are left.
    pub(crate) fn consume(&mut self, n: usize) -> bool {
        self.at = (self.at + n).min(self.end);
        self.at == self.end
    }
}

/// Reads what a socket has, up to `most` bytes, into a buffer lent at that moment. `None` at the end of the stream.
pub(crate) fn poll_read_lent(
    stream: &mut TcpStream,
    most: usize,
    cx: &mut Context<'_>,
) -> Poll<io::Result<Option<Filled>>> {
    loop {
        ready!(stream.poll_read_ready(cx))?;
        let mut buffer = Lent::take();
        let most = most.min(buffer.len());
        let mut space = ReadBuf::new(&mut buffer[..most]);
        match Pin::new(&mut *stream).poll_read(cx, &mut space) {
            // The readiness was stale: give the buffer back and wait.
            Poll::Pending => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) => {
                let n = space.filled().len();
                return Poll::Ready(Ok((n > 0).then(|| Filled::new(buffer, n))));
            }
        }
    }
}

/// Sets what every connection of ours has: no delay of small writes, and a peer that vanished is noticed (after about
/// two minutes of silence), because idle connections are kept for as long as their sides want.
///
/// # Errors
/// When the socket is gone already.
pub(crate) fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive =
        TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE_INTERVAL).with_retries(4);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

/// A TCP stream under TLS.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: TcpStream,
    ahead: Option<Filled>,
}

impl Wire {
    /// A stream of which nothing was read.
    pub(crate) fn new(stream: TcpStream) -> Self {
        Wire { stream, ahead: None }
    }

    /// A stream whose first bytes were read already.
    pub(crate) fn replaying(stream: TcpStream, first: Filled) -> Self {
        Wire { stream, ahead: Some(first) }
    }

    /// The socket.
    pub(crate) fn socket(&self) -> &TcpStream {
        &self.stream
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.ahead.is_none() {
            this.ahead = ready!(poll_read_lent(&mut this.stream, LENT, cx))?;
        }
        if let Some(ahead) = &mut this.ahead {
            let n = ahead.rest().len().min(into.remaining());
            into.put_slice(&ahead.rest()[..n]);
            if ahead.consume(n) {
                this.ahead = None;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
