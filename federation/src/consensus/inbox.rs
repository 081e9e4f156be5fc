//! The raft thread's only door: bounded queues that never make a caller wait, taken all at once.
//!
//! What is full says so: a proposal or a read is refused, a message from a peer is dropped as a network might.

use crate::consensus::node::Input;
use crate::consensus::replica::{ChangeError, ProposeError, ReadError};
use bytes::Bytes;
use raft::eraftpb::{ConfChangeType, Message};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::oneshot;

/// Proposals that may wait: far more than fit one round, and few enough that the last is still answered in time.
const MAX_PROPOSALS: usize = 8192;
/// The commands of these.
const MAX_PROPOSAL_BYTES: usize = 16 << 20;
/// Reads that may wait; each is a few words.
const MAX_READS: usize = 65_536;
/// Messages that may wait: some rounds of every peer's window.
const MAX_MESSAGES: usize = 4096;
/// The entries of these.
const MAX_MESSAGE_BYTES: usize = 64 << 20;
/// Requests and reports of other kinds; there are few, except from a defect.
const MAX_CONTROLS: usize = 1024;

/// Answers a proposal.
pub(crate) type ProposeReply<R> = oneshot::Sender<Result<(u64, R), ProposeError>>;

/// A command and its waiting caller.
pub(crate) struct Waiting<R> {
    pub(crate) command: Bytes,
    pub(crate) reply: ProposeReply<R>,
}

/// What is neither a command nor a read nor a message.
pub(crate) enum Control {
    /// Change the membership.
    Change(ConfChangeType, u64, oneshot::Sender<Result<u64, ChangeError>>),
    /// An input as it is.
    Input(Input),
}

/// What has come since the last time.
pub(crate) struct Work<R> {
    pub(crate) proposals: Vec<Waiting<R>>,
    pub(crate) reads: Vec<oneshot::Sender<Result<u64, ReadError>>>,
    pub(crate) messages: Vec<Message>,
    pub(crate) controls: Vec<Control>,
    pub(crate) shutdown: bool,
}

struct Queues<R> {
    work: Work<R>,
    proposal_bytes: usize,
    message_bytes: usize,
    /// Whether the thread sleeps and nobody has woken it yet.
    asleep: bool,
    /// Why nothing is taken any more.
    closed: Option<Arc<str>>,
}

/// The queues, shared.
pub(crate) struct Inbox<R> {
    queues: Mutex<Queues<R>>,
    arrived: Condvar,
}

fn nothing<R>() -> Work<R> {
    Work {
        proposals: Vec::new(),
        reads: Vec::new(),
        messages: Vec::new(),
        controls: Vec::new(),
        shutdown: false,
    }
}

impl<R> Work<R> {
    fn is_empty(&self) -> bool {
        !self.shutdown
            && self.proposals.is_empty()
            && self.reads.is_empty()
            && self.messages.is_empty()
            && self.controls.is_empty()
    }
}

impl<R> Inbox<R> {
    pub(crate) fn new() -> Self {
        let queues =
            Queues { work: nothing(), proposal_bytes: 0, message_bytes: 0, asleep: false, closed: None };
        Inbox { queues: Mutex::new(queues), arrived: Condvar::new() }
    }

    /// Nothing panics while it holds the lock, so a poisoned one is whole.
    fn lock(&self) -> MutexGuard<'_, Queues<R>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the thread if it sleeps: while it works it looks by itself, and a call to the kernel for each of some
    /// hundred proposals would be the greater part of handing them over.
    fn wake(&self, mut queues: MutexGuard<'_, Queues<R>>) {
        let asleep = std::mem::take(&mut queues.asleep);
        drop(queues);
        if asleep {
            self.arrived.notify_one();
        }
    }

    /// Why the replica stopped, if it did.
    pub(crate) fn closed(&self) -> Option<Arc<str>> {
        self.lock().closed.clone()
    }

    /// Hands a command over.
    pub(crate) fn propose(&self, waiting: Waiting<R>) -> Result<(), ProposeError> {
        let mut queues = self.lock();
        if let Some(reason) = &queues.closed {
            return Err(ProposeError::Stopped(reason.to_string()));
        }
        let bytes = queues.proposal_bytes + waiting.command.len();
        if queues.work.proposals.len() >= MAX_PROPOSALS || bytes > MAX_PROPOSAL_BYTES {
            return Err(ProposeError::Busy);
        }
        queues.proposal_bytes = bytes;
        queues.work.proposals.push(waiting);
        self.wake(queues);
        Ok(())
    }

    /// Hands a read over.
    pub(crate) fn read(&self, reply: oneshot::Sender<Result<u64, ReadError>>) -> Result<(), ReadError> {
        let mut queues = self.lock();
        if let Some(reason) = &queues.closed {
            return Err(ReadError::Stopped(reason.to_string()));
        }
        if queues.work.reads.len() >= MAX_READS {
            return Err(ReadError::Busy);
        }
        queues.work.reads.push(reply);
        self.wake(queues);
        Ok(())
    }

    /// Hands a message over; false when it was dropped.
    pub(crate) fn message(&self, message: Message) -> bool {
        let bytes: usize = message.entries.iter().map(|e| e.data.len()).sum();
        let mut queues = self.lock();
        let full =
            queues.work.messages.len() >= MAX_MESSAGES || queues.message_bytes + bytes > MAX_MESSAGE_BYTES;
        if full || queues.closed.is_some() {
            return false;
        }
        queues.message_bytes += bytes;
        queues.work.messages.push(message);
        self.wake(queues);
        true
    }

    /// Hands something else over; false when it was dropped.
    pub(crate) fn control(&self, control: Control) -> bool {
        let mut queues = self.lock();
        if queues.closed.is_some() || queues.work.controls.len() >= MAX_CONTROLS {
            return false;
        }
        queues.work.controls.push(control);
        self.wake(queues);
        true
    }

    /// Hands a report over. Each kind is bounded by the number of peers, and losing one could stop replication to a
    /// peer, so none is dropped; a loss that is already reported is not reported twice.
    pub(crate) fn report(&self, input: Input) {
        let mut queues = self.lock();
        if queues.closed.is_some() {
            return;
        }
        let said = |c: &Control| matches!((c, &input), (Control::Input(Input::Unreachable(a)), Input::Unreachable(b)) if a == b);
        if !queues.work.controls.iter().any(said) {
            queues.work.controls.push(Control::Input(input));
            self.wake(queues);
        }
    }

    /// Asks the thread to end.
    pub(crate) fn shutdown(&self) {
        let mut queues = self.lock();
        queues.work.shutdown = true;
        self.wake(queues);
    }

    /// Takes nothing any more, and drops what waits.
    pub(crate) fn close(&self, reason: &str) {
        let mut queues = self.lock();
        queues.closed.get_or_insert_with(|| reason.into());
        queues.work = nothing();
    }

    /// Everything that has come, as soon as there is something or the time has come.
    pub(crate) fn take(&self, until: Instant) -> Work<R> {
        let mut queues = self.lock();
        while queues.work.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            queues.asleep = true;
            queues = self.arrived.wait_timeout(queues, left).unwrap_or_else(PoisonError::into_inner).0;
            queues.asleep = false;
        }
        (queues.proposal_bytes, queues.message_bytes) = (0, 0);
        std::mem::replace(&mut queues.work, nothing())
    }
}
