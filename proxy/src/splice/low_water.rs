//! How many bytes make a socket worth waking up for: `SO_RCVLOWAT` of socket(7), which no library of ours sets.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsRawFd;
use tokio::net::TcpStream;

/// A socket whose readiness may be held back until more has come. Dropping it takes that back.
#[derive(Debug)]
pub(super) struct LowWater<'a> {
    socket: &'a TcpStream,
    raised: bool,
}

impl<'a> LowWater<'a> {
    /// As every socket is: ready for a single byte.
    pub(super) fn of(socket: &'a TcpStream) -> Self {
        LowWater { socket, raised: false }
    }

    /// Whether readiness is held back.
    pub(super) fn raised(&self) -> bool {
        self.raised
    }

    /// Holds readiness back until so many bytes wait, or the peer closed, or its window is used up.
    ///
    /// # Errors
    /// When the kernel refuses; nothing is changed then.
    pub(super) fn raise(&mut self, bytes: i32) -> io::Result<()> {
        set(self.socket, bytes)?;
        self.raised = true;
        Ok(())
    }

    /// Any byte makes ready again. Of bytes that wait already the kernel does not tell: they must be looked for.
    pub(super) fn lower(&mut self) {
        if std::mem::take(&mut self.raised)
            && let Err(error) = set(self.socket, 1)
        {
            tracing::error!(%error, "a socket's low-water mark can not be taken back");
        }
    }
}

impl Drop for LowWater<'_> {
    fn drop(&mut self) {
        self.lower();
    }
}

fn set(socket: &TcpStream, bytes: i32) -> io::Result<()> {
    let size = libc::socklen_t::try_from(size_of::<i32>()).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open for as long as `socket` is borrowed; the kernel reads `size` bytes from the
    // pointer, which is the whole of `bytes`, and keeps nothing of it.
    let done = unsafe {
        let value = std::ptr::from_ref(&bytes).cast();
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVLOWAT, value, size)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
