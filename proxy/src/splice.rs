//! Bytes from socket to socket, unread: a gateway's passthrough and captured connections that are no import.
//!
//! A direction begins with plain copies (a short exchange never pays for a pipe). Once it moved 64 KiB, and for as long
//! as its bytes come in large pieces, it goes through a pipe by `splice(2)`, in the kernel; small messages are cheaper
//! copied, however many they are. Pipes are pooled and bounded; a direction without one, or a kernel that refuses, goes
//! on copying. A direction at rest holds neither buffer nor pipe.
//!
//! A stream that goes on and on is taken in larger pieces yet: the socket is then not ready before a MiB has come, for
//! at most two or three milliseconds.

mod low_water;

use crate::connections::Traffic;
use crate::wire::Lent;
use low_water::LowWater;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWriteExt, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

/// No client's part of a mutual handshake is so short, beside a mere change_cipher_spec.
const FEW: u64 = 64;
/// What a direction moves by copies before it takes a pipe.
const COPY_FIRST: u64 = 64 * 1024;
/// Pieces from here on are worth a pipe: what a full TLS record carries.
const LARGE: usize = 16 * 1024;
/// The wished capacity of a pipe; the kernel may give less to unprivileged processes.
const PIPE_SIZE: usize = 1024 * 1024;
const FALLBACK_PIPE_SIZE: usize = 256 * 1024;
/// The most idle pipes that are kept.
const KEPT: usize = 64;

/// What a direction moves in large pieces before it is a stream, of which larger pieces yet are waited for.
const STREAM: usize = 1024 * 1024;
/// A stream's pieces, in bytes: the larger, the less each costs. As much as a pipe holds.
const AT_LEAST: i32 = 1024 * 1024;
/// How long a smaller piece of a stream may wait for more, its last one too. (The clock ticks in milliseconds.)
const LONGEST_WAIT: Duration = Duration::from_millis(2);
/// What comes in so long at the least while a stream goes on: 64 MB/s. Less is not worth the wait.
const GOES_ON: usize = 128 * 1024;

/// Which way bytes count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Sent,
    Received,
}

/// The pipes of a process.
#[derive(Debug)]
pub(crate) struct Pipes {
    limit: usize,
    out: AtomicUsize,
    opened: AtomicUsize,
    streams: AtomicUsize,
    idle: Mutex<Vec<Pipe>>,
}

#[derive(Debug)]
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    size: usize,
}

impl Pipe {
    fn open() -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let size = fcntl_setpipe_size(&write, PIPE_SIZE)
            .or_else(|_| fcntl_setpipe_size(&write, FALLBACK_PIPE_SIZE))
            .unwrap_or(64 * 1024);
        Ok(Pipe { read, write, size })
    }
}

/// An empty pipe on loan. Given back by [`Loan::give_back`]; one that is dropped is closed, because it may hold bytes.
struct Loan<'a> {
    pipe: Option<Pipe>,
    pipes: &'a Pipes,
}

impl Pipes {
    /// At most `limit` pipes in use at a time; 0 turns splicing off.
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Pipes {
            limit,
            out: AtomicUsize::new(0),
            opened: AtomicUsize::new(0),
            streams: AtomicUsize::new(0),
            idle: Mutex::default(),
        })
    }

    /// How many are in use.
    pub(crate) fn in_use(&self) -> usize {
        self.out.load(Ordering::Relaxed)
    }

    /// How many were ever opened.
    pub(crate) fn opened(&self) -> usize {
        self.opened.load(Ordering::Relaxed)
    }

    /// How many times a direction was a stream, taken in larger pieces.
    pub(crate) fn streams(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }

    fn borrow(&self) -> Option<Loan<'_>> {
        if self.out.fetch_add(1, Ordering::Relaxed) >= self.limit {
            self.out.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let mut loan = Loan { pipe: None, pipes: self };
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        loan.pipe = match idle {
            Some(pipe) => Some(pipe),
            None => {
                self.opened.fetch_add(1, Ordering::Relaxed);
                Pipe::open().inspect_err(|error| tracing::debug!(%error, "no pipe to splice with")).ok()
            }
        };
        loan.pipe.is_some().then_some(loan)
    }
}

impl Loan<'_> {
    fn give_back(mut self) {
        let mut idle = self.pipes.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < KEPT {
            idle.extend(self.pipe.take());
        }
    }
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        self.pipes.out.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Passes bytes both ways until both directions ended. `traffic.sent` counts from `near` to `far`; `begun` is called
/// when `near` has said more than a few bytes.
///
/// # Errors
/// When one side breaks; the caller drops both.
pub(crate) async fn pass(
    near: &mut TcpStream,
    far: &mut TcpStream,
    traffic: &Traffic,
    pipes: &Pipes,
    begun: impl FnOnce(),
) -> io::Result<()> {
    let (near_read, near_write) = near.split();
    let (far_read, far_write) = far.split();
    tokio::try_join!(
        one_way(near_read, far_write, traffic, Way::Sent, pipes, begun),
        one_way(far_read, near_write, traffic, Way::Received, pipes, || ()),
    )?;
    Ok(())
}

async fn one_way(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    traffic: &Traffic,
    way: Way,
    pipes: &Pipes,
    begun: impl FnOnce(),
) -> io::Result<()> {
    let mut begun = Some(begun);
    let count = |n: usize| match way {
        Way::Sent => traffic.sent(n),
        Way::Received => traffic.received(n),
    };
    let mut moved = 0u64;
    let (mut may_splice, mut large, mut streak) = (pipes.limit > 0, false, 0);
    loop {
        if may_splice && large && moved >= COPY_FIRST {
            from.readable().await?;
            if let Some(loan) = pipes.borrow() {
                match spliced(from.as_ref(), to.as_ref(), loan, &mut streak, &count).await? {
                    Spliced::Ended => break,
                    // Nothing at all says nothing: the copy before had taken what there was.
                    Spliced::Idle(run) => large = run == 0 || run >= LARGE,
                    Spliced::Refused => may_splice = false,
                }
                continue;
            }
        }
        let (buffer, n) = read_lent(&mut from).await?;
        if n == 0 {
            break;
        }
        to.write_all(&buffer[..n]).await?;
        moved += n as u64;
        if moved >= FEW
            && let Some(begun) = begun.take()
        {
            begun();
        }
        large = n >= LARGE;
        streak = 0;
        count(n);
    }
    match to.shutdown().await {
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
        other => other,
    }
}

/// One read, into a buffer that is lent when there is something to read.
async fn read_lent(from: &mut ReadHalf<'_>) -> io::Result<(Lent, usize)> {
    poll_fn(|cx| {
        loop {
            std::task::ready!(from.as_ref().poll_read_ready(cx))?;
            let mut buffer = Lent::take();
            let mut space = ReadBuf::new(&mut buffer);
            if let Poll::Ready(result) = Pin::new(&mut *from).poll_read(cx, &mut space) {
                result?;
                let n = space.filled().len();
                return Poll::Ready(Ok((buffer, n)));
            }
        }
    })
    .await
}

enum Spliced {
    /// The sender closed.
    Ended,
    /// Nothing to read just now: the pipe went back. So much was moved since there was.
    Idle(usize),
    /// The kernel does not splice these sockets.
    Refused,
}

async fn spliced(
    from: &TcpStream,
    to: &TcpStream,
    loan: Loan<'_>,
    streak: &mut usize,
    count: &impl Fn(usize),
) -> io::Result<Spliced> {
    let Some(pipe) = &loan.pipe else { return Ok(Spliced::Refused) };
    let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    // The pipe is empty when this is called, so "would block" speaks of the socket alone.
    let fill = || splice(from, None, &pipe.write, None, pipe.size, flags).map_err(io::Error::from);
    let mut low_water = LowWater::of(from);
    // What was moved, and what since the last wait.
    let (mut run, mut since) = (0, 0);
    // Whether the socket said that it is ready. What waits below a raised mark it does not tell of.
    let mut told = true;
    loop {
        let filled = if told { from.try_io(Interest::READABLE, fill) } else { fill() };
        match filled {
            Ok(0) => {
                loan.give_back();
                return Ok(Spliced::Ended);
            }
            Ok(n) => {
                (run, since, *streak) = (run + n, since + n, *streak + n);
                drain(&pipe.read, to, n, flags, count).await?;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if low_water.raised() && !told && since < GOES_ON {
                    // The stream pauses. What came before the mark was taken back is looked for once more.
                    low_water.lower();
                    *streak = 0;
                    continue;
                }
                if !low_water.raised() {
                    if *streak < STREAM || low_water.raise(AT_LEAST).is_err() {
                        loan.give_back();
                        return Ok(Spliced::Idle(run));
                    }
                    loan.pipes.streams.fetch_add(1, Ordering::Relaxed);
                }
                since = 0;
                told = tokio::time::timeout(LONGEST_WAIT, from.readable()).await.is_ok();
            }
            Err(error) if run == 0 && refused(&error) => return Ok(Spliced::Refused),
            Err(error) => return Err(error),
        }
        // A saturated pair of sockets is ready for ever: others of this worker must get their turn.
        tokio::task::coop::consume_budget().await;
    }
}

/// Moves what is in a pipe to its socket.
async fn drain(
    pipe: &OwnedFd,
    to: &TcpStream,
    mut left: usize,
    flags: SpliceFlags,
    count: &impl Fn(usize),
) -> io::Result<()> {
    while left > 0 {
        let write = || splice(pipe, None, to, None, left, flags).map_err(io::Error::from);
        let n = to.async_io(Interest::WRITABLE, write).await?;
        if n == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        left -= n;
        count(n);
    }
    Ok(())
}

fn refused(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied
    )
}

#[cfg(test)]
mod tests;
