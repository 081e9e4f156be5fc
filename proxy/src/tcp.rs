//! The relay between an application's plain stream and the TLS stream of its peer.
//!
//! Each direction ends for itself: the end of a plain stream becomes close_notify, and a close_notify the end of the
//! plain stream. A stream that breaks (no close_notify) breaks the other one too, so that nobody takes half an answer
//! for a whole one. A direction at rest holds no buffer. A message goes on as it came; of a stream several records go on
//! in one write, which costs less than a wake-up of the other side for each.

use crate::connections::Traffic;
use crate::wire::{Filled, Lent, PLAIN, poll_read_lent};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncBufRead, AsyncWrite};
use tokio::net::TcpStream;

/// A piece of TLS from here on is part of a stream rather than a message: it waits for what else is there already.
const STREAM: usize = 8 * 1024;

/// On which side a relay broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// The application's.
    Plain,
    /// The peer's.
    Tls,
}

/// A relay that did not end by both sides closing.
#[derive(Debug, thiserror::Error)]
#[error("the connection to the {} broke: {source}", match .side { Side::Plain => "application", Side::Tls => "peer" })]
pub(crate) struct Broken {
    /// Where.
    pub(crate) side: Side,
    /// Why.
    pub(crate) source: io::Error,
    /// Whether anything was taken from either side before.
    pub(crate) touched: bool,
}

fn broke(side: Side) -> impl FnOnce(io::Error) -> Broken {
    move |source| Broken { side, source, touched: true }
}

/// Relays until both directions ended or one side broke. `traffic.sent` counts what goes into TLS.
///
/// # Errors
/// When one side broke; the caller drops both.
pub(crate) async fn relay<T>(plain: &mut TcpStream, tls: &mut T, traffic: &Traffic) -> Result<(), Broken>
where
    T: AsyncBufRead + AsyncWrite + Unpin,
{
    let (mut up, mut down) = (Up::Reading, Down::Moving);
    poll_fn(|cx| {
        // Down first: its last bytes may be what lets the application close, and a refusal must be seen before
        // anything is taken from it.
        let untouched = matches!(up, Up::Reading) && traffic.so_far() == (0, 0);
        let moved = down.poll(plain, tls, traffic, cx);
        let moved = moved.map_err(|e| Broken { touched: !untouched || traffic.so_far() != (0, 0), ..e })?;
        let sent = up.poll(plain, tls, traffic, cx)?;
        if moved.is_ready() && sent.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
    })
    .await
}

/// Plain to TLS.
enum Up {
    Reading,
    /// Written to TLS, but perhaps not yet to its socket.
    Flushing,
    Writing(Filled),
    Closing,
    Done,
}

impl Up {
    fn poll<T: AsyncWrite + Unpin>(
        &mut self,
        plain: &mut TcpStream,
        tls: &mut T,
        traffic: &Traffic,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Broken>> {
        loop {
            match self {
                Up::Reading | Up::Flushing => {
                    if matches!(self, Up::Flushing)
                        && Pin::new(&mut *tls).poll_flush(cx).map_err(broke(Side::Tls))?.is_ready()
                    {
                        *self = Up::Reading;
                    }
                    *self = match ready!(poll_read_lent(plain, PLAIN, cx)).map_err(broke(Side::Plain))? {
                        Some(filled) => Up::Writing(filled),
                        None => Up::Closing,
                    };
                }
                Up::Writing(filled) => {
                    let write = Pin::new(&mut *tls).poll_write(cx, filled.rest());
                    let n = ready!(write).map_err(broke(Side::Tls))?;
                    traffic.sent(n);
                    if n == 0 {
                        return Poll::Ready(Err(broke(Side::Tls)(io::ErrorKind::WriteZero.into())));
                    }
                    if filled.consume(n) {
                        *self = Up::Flushing;
                    }
                }
                Up::Closing => {
                    ready!(Pin::new(&mut *tls).poll_shutdown(cx)).map_err(broke(Side::Tls))?;
                    *self = Up::Done;
                }
                Up::Done => return Poll::Ready(Ok(())),
            }
        }
    }
}

/// TLS to plain. The bytes stand in the TLS library's own buffer until the application takes them.
enum Down {
    Moving,
    /// Gathered from several records, and what the TLS side said after them.
    Writing(Filled, Option<io::Error>),
    Closing,
    Done,
}

impl Down {
    fn poll<T: AsyncBufRead + Unpin>(
        &mut self,
        plain: &mut TcpStream,
        tls: &mut T,
        traffic: &Traffic,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Broken>> {
        loop {
            match self {
                Down::Moving => {
                    let chunk = ready!(Pin::new(&mut *tls).poll_fill_buf(cx)).map_err(broke(Side::Tls))?;
                    match chunk.len() {
                        0 => *self = Down::Closing,
                        1..STREAM => {
                            let n = ready!(write(plain, chunk, traffic, cx))?;
                            Pin::new(&mut *tls).consume(n);
                        }
                        _ => *self = gather(tls, cx),
                    }
                }
                Down::Writing(filled, after) => {
                    let n = ready!(write(plain, filled.rest(), traffic, cx))?;
                    if filled.consume(n) {
                        let after = after.take();
                        *self = Down::Moving;
                        after.map_or(Ok(()), |error| Err(broke(Side::Tls)(error)))?;
                    }
                }
                Down::Closing => {
                    match ready!(Pin::new(&mut *plain).poll_shutdown(cx)) {
                        // It is gone already: that is closed enough.
                        Err(error) if error.kind() == io::ErrorKind::NotConnected => {}
                        other => other.map_err(broke(Side::Plain))?,
                    }
                    *self = Down::Done;
                }
                Down::Done => return Poll::Ready(Ok(())),
            }
        }
    }
}

/// Writes to the application what it takes.
fn write(
    plain: &mut TcpStream,
    bytes: &[u8],
    traffic: &Traffic,
    cx: &mut Context<'_>,
) -> Poll<Result<usize, Broken>> {
    let n = ready!(Pin::new(plain).poll_write(cx, bytes)).map_err(broke(Side::Plain))?;
    traffic.received(n);
    if n == 0 {
        return Poll::Ready(Err(broke(Side::Plain)(io::ErrorKind::WriteZero.into())));
    }
    Poll::Ready(Ok(n))
}

/// Takes what is there, without waiting, up to a buffer full.
fn gather<T: AsyncBufRead + Unpin>(tls: &mut T, cx: &mut Context<'_>) -> Down {
    let mut buffer = Lent::take();
    let (mut end, mut after) = (0, None);
    while end < PLAIN {
        match Pin::new(&mut *tls).poll_fill_buf(cx) {
            Poll::Ready(Ok(chunk)) if !chunk.is_empty() => {
                let n = chunk.len().min(PLAIN - end);
                buffer[end..end + n].copy_from_slice(&chunk[..n]);
                Pin::new(&mut *tls).consume(n);
                end += n;
            }
            // The end is told again when it is asked for again; an error may not be.
            Poll::Ready(Ok(_)) | Poll::Pending => break,
            Poll::Ready(Err(error)) => {
                after = Some(error);
                break;
            }
        }
    }
    Down::Writing(Filled::new(buffer, end), after)
}

/// Makes the drop of a plain stream a reset: what it carried was cut short.
pub(crate) fn reset_on_drop(stream: &TcpStream) {
    // When even that fails the stream ends as the kernel likes; there is nothing left to do for it.
    let _ = socket2::SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO));
}

#[cfg(test)]
mod tests;
