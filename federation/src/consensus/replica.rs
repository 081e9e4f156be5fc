//! The face of consensus: a handle on one replica.
//!
//! What a caller may rely on:
//!
//! - A proposal that is answered `Ok` is applied here and durable on a majority. [`ProposeError::Unknown`] means that it
//!   may be applied yet or never; a retry needs a command that the machine knows again. Every other error means that
//!   it was never in the log.
//! - [`Replica::state`] never waits and never goes backwards, except across a restart. It may be old: a caller that
//!   must see what others were acknowledged asks [`Replica::read_index`] first.
//! - [`Replica::subscribe`] gives every applied round in order, or says that it lagged; then `state()` has it all.

use crate::consensus::inbox::{Control, Inbox, Waiting};
use crate::consensus::machine::StateMachine;
use crate::consensus::node::Input;
use crate::consensus::status::{Progress, RaftStatus};
use crate::consensus::transport::Link;
use arc_swap::ArcSwap;
use bytes::Bytes;
use raft::eraftpb::ConfChangeType;
use sealane_core::identity::ServerId;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{broadcast, oneshot, watch};
use tokio::time::{Instant, timeout_at};

/// Commands above this are refused.
pub const MAX_COMMAND_BYTES: usize = 1 << 20;
/// How far behind the commit index a learner may be when it becomes a voter.
const PROMOTE_WITHIN: u64 = 64;
/// How long a change of membership waits for the one before it.
const CHANGE_PAUSE: Duration = Duration::from_millis(50);

/// Why a proposal was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This server does not lead; the command was not appended.
    #[error("this server does not lead")]
    NotLeader {
        /// Who does, if known.
        leader: Option<ServerId>,
    },
    /// Leadership was lost while the command was under way: it may be applied yet, or never.
    #[error("leadership was lost; the command may be applied yet, or never")]
    Unknown,
    /// Too much waits to be committed; the command was not appended.
    #[error("too much waits to be committed")]
    Busy,
    /// The command is larger than any may be.
    #[error("the command is larger than {MAX_COMMAND_BYTES} bytes")]
    TooLarge,
    /// The replica stopped.
    #[error("the replica stopped: {0}")]
    Stopped(String),
}

/// Why a read has no index.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// No leader confirmed it in time.
    #[error("no leader confirmed the read in time")]
    Expired,
    /// Too many reads wait.
    #[error("too many reads wait")]
    Busy,
    /// The replica stopped.
    #[error("the replica stopped: {0}")]
    Stopped(String),
}

/// Why a change of membership was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// This server does not lead.
    #[error("this server does not lead")]
    NotLeader {
        /// Who does, if known.
        leader: Option<ServerId>,
    },
    /// Leadership was lost: the change may be made yet, or never.
    #[error("leadership was lost; the change may be made yet, or never")]
    Unknown,
    /// Another change is under way.
    #[error("another change of membership is under way")]
    Busy,
    /// It does not fit the configuration.
    #[error("{0}")]
    Refused(String),
    /// The server to be added has not caught up in time; it stays a learner.
    #[error("server {server} has not caught up in time; it stays a learner")]
    NotCaughtUp {
        /// The learner.
        server: ServerId,
    },
    /// It was not done in time.
    #[error("it was not done in time")]
    Expired,
    /// The replica stopped.
    #[error("the replica stopped: {0}")]
    Stopped(String),
}

/// What one round of the loop applied.
#[derive(Debug, Clone)]
pub struct AppliedRound<M: StateMachine> {
    /// The first index of the round.
    pub first: u64,
    /// The last index of the round, and of `machine`.
    pub last: u64,
    /// The state after the round.
    pub machine: M,
    /// The commands' indices and replies, in order. Entries of raft's own have none.
    pub replies: Vec<(u64, M::Reply)>,
    /// Whether the state was replaced by a snapshot: what lies between is not told.
    pub reset: bool,
}

/// What the handle and the loop share.
pub(crate) struct Shared<M: StateMachine> {
    pub(crate) inbox: Arc<Inbox<M::Reply>>,
    pub(crate) state: ArcSwap<(u64, M)>,
    pub(crate) applied: watch::Sender<u64>,
    pub(crate) rounds: broadcast::Sender<Arc<AppliedRound<M>>>,
    pub(crate) status: watch::Sender<RaftStatus>,
    pub(crate) stopped: watch::Sender<Option<Arc<str>>>,
}

/// A handle on a replica. Cheap to clone. The replica runs until [`Replica::shutdown`] or until it must stop.
pub struct Replica<M: StateMachine> {
    pub(crate) shared: Arc<Shared<M>>,
    pub(crate) link: Link,
}

impl<M: StateMachine> Clone for Replica<M> {
    fn clone(&self) -> Self {
        Replica { shared: self.shared.clone(), link: self.link.clone() }
    }
}

impl<M: StateMachine> Replica<M> {
    /// This server.
    pub fn id(&self) -> ServerId {
        self.link.id()
    }

    /// Where peers' messages are handed in.
    pub fn link(&self) -> Link {
        self.link.clone()
    }

    fn reason(&self) -> String {
        self.shared.inbox.closed().map_or_else(|| "it ended".to_owned(), |r| r.to_string())
    }

    /// The leader, if one is known.
    pub fn leader(&self) -> Option<ServerId> {
        self.shared.status.borrow().leader
    }

    /// Has a command committed and applied; gives its index and the machine's reply. Its place in the order of commands
    /// is taken by the call, not by awaiting it.
    pub fn propose(
        &self,
        command: Bytes,
    ) -> impl Future<Output = Result<(u64, M::Reply), ProposeError>> + use<M> {
        let (reply, answer) = oneshot::channel();
        let taken = match command.len() {
            ..=MAX_COMMAND_BYTES => self.shared.inbox.propose(Waiting { command, reply }),
            _ => Err(ProposeError::TooLarge),
        };
        async move {
            taken?;
            // The loop may have ended between taking the command and answering it.
            answer.await.unwrap_or(Err(ProposeError::Unknown))
        }
    }

    /// The index that the state has reached, and the state. No lock, no wait.
    pub fn state(&self) -> Arc<(u64, M)> {
        self.shared.state.load_full()
    }

    /// The applied index as it moves.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.shared.applied.subscribe()
    }

    /// Every round applied from now on. A subscriber that lags is told so, and finds everything in `state()`.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<AppliedRound<M>>> {
        self.shared.rounds.subscribe()
    }

    /// Waits until the state holds everything that was acknowledged to anyone before this call; gives the index.
    pub async fn read_index(&self, deadline: Instant) -> Result<u64, ReadError> {
        let (reply, answer) = oneshot::channel();
        self.shared.inbox.read(reply)?;
        match timeout_at(deadline, answer).await {
            Ok(Ok(read)) => read,
            Ok(Err(_)) => Err(ReadError::Stopped(self.reason())),
            Err(_) => Err(ReadError::Expired),
        }
    }

    /// Waits until the state has reached an index.
    pub async fn wait_applied(&self, index: u64, deadline: Instant) -> Result<(), ReadError> {
        let mut applied = self.applied();
        match timeout_at(deadline, applied.wait_for(|at| *at >= index)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(ReadError::Stopped(self.reason())),
            Err(_) => Err(ReadError::Expired),
        }
    }

    /// The replica's status as it changes.
    pub fn status(&self) -> watch::Receiver<RaftStatus> {
        self.shared.status.subscribe()
    }

    async fn change(
        &self,
        kind: ConfChangeType,
        server: ServerId,
        deadline: Instant,
    ) -> Result<u64, ChangeError> {
        loop {
            let (reply, answer) = oneshot::channel();
            if !self.shared.inbox.control(Control::Change(kind, server.0, reply)) {
                return Err(self
                    .shared
                    .inbox
                    .closed()
                    .map_or(ChangeError::Busy, |r| ChangeError::Stopped(r.to_string())));
            }
            match timeout_at(deadline, answer).await {
                Ok(Ok(Err(ChangeError::Busy))) if Instant::now() + CHANGE_PAUSE < deadline => {
                    tokio::time::sleep(CHANGE_PAUSE).await;
                }
                Ok(Ok(done)) => return done,
                Ok(Err(_)) => return Err(ChangeError::Unknown),
                Err(_) => return Err(ChangeError::Expired),
            }
        }
    }

    /// Adds a server: as a learner first, and as a voter once it has caught up. Only on the leader; may be repeated.
    pub async fn add_server(&self, server: ServerId, deadline: Instant) -> Result<(), ChangeError> {
        let now = self.shared.status.borrow().clone();
        if now.voters.contains(&server) {
            return Ok(());
        }
        if !now.learners.contains(&server) {
            self.change(ConfChangeType::AddLearnerNode, server, deadline).await?;
        }
        let mut status = self.status();
        // Raft takes a new server for active; only what it has on its disk proves that it is there.
        let near = |p: &Progress, commit| p.active && p.matched > 0 && p.matched + PROMOTE_WITHIN >= commit;
        let caught_up =
            |s: &RaftStatus| !s.is_leader() || s.progress.get(&server).is_some_and(|p| near(p, s.commit));
        match timeout_at(deadline, status.wait_for(caught_up)).await {
            Ok(Ok(s)) if !s.is_leader() => return Err(ChangeError::NotLeader { leader: s.leader }),
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return Err(ChangeError::Stopped(self.reason())),
            Err(_) => return Err(ChangeError::NotCaughtUp { server }),
        }
        self.change(ConfChangeType::AddNode, server, deadline).await.map(drop)
    }

    /// Removes a server. Only on the leader, which does not remove itself: transfer leadership first.
    pub async fn remove_server(&self, server: ServerId, deadline: Instant) -> Result<(), ChangeError> {
        let now = self.shared.status.borrow().clone();
        if now.is_leader() && !now.voters.contains(&server) && !now.learners.contains(&server) {
            return Ok(());
        }
        self.change(ConfChangeType::RemoveNode, server, deadline).await.map(drop)
    }

    /// Hands leadership to a voter that is up to date.
    pub async fn transfer_leader(&self, to: ServerId, deadline: Instant) -> Result<(), ChangeError> {
        let mut status = self.status();
        let now = status.borrow_and_update().clone();
        if now.leader == Some(to) {
            return Ok(());
        }
        if !now.is_leader() {
            return Err(ChangeError::NotLeader { leader: now.leader });
        }
        if !now.voters.contains(&to) {
            return Err(ChangeError::Refused(format!("server {to} is no voter")));
        }
        self.shared.inbox.control(Control::Input(Input::Transfer(to.0)));
        match timeout_at(deadline, status.wait_for(|s| s.leader == Some(to))).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(ChangeError::Stopped(self.reason())),
            Err(_) => Err(ChangeError::Expired),
        }
    }

    /// Ends the replica: a leader hands over first, and what is on the disk is complete.
    pub async fn shutdown(&self) {
        self.shared.inbox.shutdown();
        self.stopped().await;
    }

    /// Waits until the replica has ended, and says why. The process should end with it.
    pub async fn stopped(&self) -> String {
        let mut stopped = self.shared.stopped.subscribe();
        match stopped.wait_for(Option::is_some).await {
            Ok(reason) => reason.as_deref().unwrap_or_default().to_owned(),
            Err(_) => self.reason(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
