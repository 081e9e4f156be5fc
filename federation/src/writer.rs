//! The way of every write: to the local replica when it leads, else one hop to the leader.
//!
//! Law: a command is answered when it is applied, or refused, or its fate is said to be unknown. Every command of ours
//! is one that the state knows again (a session's sequence, an administrator's key, a token with its key), so that
//! this server may retry through an election, and so may its client afterwards.

use crate::consensus::replica::{ProposeError, Replica};
use crate::consensus::transport::grpc::Dial;
use crate::forward::Forwarder;
use crate::machine::Machine;
use crate::metrics::Metrics;
use crate::peers::Peers;
use bytes::Bytes;
use sealane_core::command::{Action, Command, Reply};
use sealane_core::identity::Principal;
use sealane_core::time::Revision;
use sealane_proto::Wire;
use sealane_trust::clock;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout_at};

/// How long a write is tried again while there is no leader.
const PATIENCE: Duration = Duration::from_secs(5);
/// The first pause between two tries, doubled each time.
const PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(320);
/// How long one hop may take: an unreachable leader is found out sooner by its followers.
const HOP: Duration = Duration::from_secs(4);

/// Why a write has no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// There was no leader for long; nothing was written.
    #[error("the federation has no leader now; nothing was written, try again")]
    NoLeader,
    /// Leadership changed while the write was under way.
    #[error(
        "the fate of the write is unknown: it may be applied yet, or never; repeat it under the same key"
    )]
    Unknown,
    /// Too much is under way.
    #[error("too much waits to be committed; nothing was written, try again later")]
    Busy,
    /// The command is larger than the log takes.
    #[error("{0}")]
    Refused(String),
    /// This server is about to end.
    #[error("this server stopped: {0}")]
    Stopped(String),
}

impl WriteError {
    /// Whether another try may do better.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self, WriteError::NoLeader | WriteError::Unknown | WriteError::Busy)
    }
}

impl From<WriteError> for tonic::Status {
    fn from(error: WriteError) -> Self {
        let message = error.to_string();
        match error {
            WriteError::NoLeader | WriteError::Stopped(_) => tonic::Status::unavailable(message),
            WriteError::Unknown => tonic::Status::aborted(message),
            WriteError::Busy => tonic::Status::resource_exhausted(message),
            WriteError::Refused(_) => tonic::Status::invalid_argument(message),
        }
    }
}

/// A write that was applied.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    /// Where in the log.
    pub index: u64,
    /// What it was answered.
    pub reply: Reply,
}

/// Writes commands. Clones share it.
#[derive(Debug, Clone)]
pub struct Writer {
    replica: ReplicaHandle,
    forwarder: Arc<Forwarder>,
    metrics: Arc<Metrics>,
}

/// The replica, which does not print.
#[derive(Clone)]
struct ReplicaHandle(Replica<Machine>);

impl std::fmt::Debug for ReplicaHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "replica of server {}", self.0.id())
    }
}

/// A command as bytes, checked to be one that every replica takes.
///
/// # Errors
/// When it breaks a rule of its message.
pub fn command(principal: Option<Principal>, action: Action) -> Result<Bytes, WriteError> {
    // In the lowest version that has all of it: a federation is not above what its oldest server understands.
    let command = Command { min_version: action.version(), at: clock::now(), principal, action };
    command.encode_checked().map(Bytes::from).map_err(|e| WriteError::Refused(e.to_string()))
}

impl Writer {
    /// Writes through this replica.
    #[must_use]
    pub fn new(replica: Replica<Machine>, peers: Arc<Peers>, metrics: Arc<Metrics>) -> Self {
        let dial: Dial = Arc::new(move |leader| peers.channel(leader).ok());
        Writer { replica: ReplicaHandle(replica), forwarder: Arc::new(Forwarder::new(dial)), metrics }
    }

    /// The revision of an index, by this server's generation.
    #[must_use]
    pub fn revision(&self, index: u64) -> Revision {
        let generation = self.replica.0.state().1.revision().generation;
        Revision { generation, index }
    }

    /// Has an action committed and applied; tries again for some seconds while there is no leader.
    ///
    /// # Errors
    /// When it was refused before the log, or there was no leader all that time.
    pub async fn write(&self, principal: Option<Principal>, action: Action) -> Result<Written, WriteError> {
        self.understood(&action)?;
        self.retry(command(principal, action)?).await
    }

    /// Whether the servers agreed on a version that has this.
    fn understood(&self, action: &Action) -> Result<(), WriteError> {
        let (needs, at) = (action.version(), self.replica.0.state().1.state.meta.cluster_version);
        // 0: this server has not heard of the federation's beginning yet, and whoever leads has.
        if at == 0 || needs <= at {
            return Ok(());
        }
        Err(WriteError::Refused(format!(
            "this needs command version {needs}, and the federation is at {at}: upgrade every server, then run `sealane \
             server raise-version`"
        )))
    }

    /// The same for a command that is bytes already.
    ///
    /// # Errors
    /// As [`Writer::write`].
    pub async fn retry(&self, command: Bytes) -> Result<Written, WriteError> {
        let end = Instant::now() + PATIENCE;
        let mut pause = PAUSE;
        loop {
            match self.attempt(command.clone()).await {
                Err(error) if error.may_pass() && Instant::now() + pause < end => {
                    self.leader_or(Instant::now() + pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                done => return done,
            }
        }
    }

    /// Tries once. What is tried first is committed first, as far as it is committed at all.
    ///
    /// # Errors
    /// When this server and the leader that it knows of could not have it committed.
    pub async fn attempt(&self, command: Bytes) -> Result<Written, WriteError> {
        let started = Instant::now();
        let (replica, end) = (&self.replica.0, started + HOP);
        let result = match replica.leader().filter(|leader| *leader != replica.id()) {
            Some(leader) => {
                let outcome = timeout_at(end, self.forwarder.forward(leader, command)).await;
                outcome.unwrap_or(Err(WriteError::Unknown))
            }
            None => match replica.propose(command).await {
                Ok((index, reply)) => Ok(Written { index, reply }),
                Err(error) => Err(local(&error)),
            },
        };
        self.metrics.proposal(result.as_ref().err(), started.elapsed());
        result
    }

    /// Waits until the leader that is known changes, at most until then.
    async fn leader_or(&self, until: Instant) {
        let mut status = self.replica.0.status();
        let before = status.borrow_and_update().leader;
        let changed = status.wait_for(|s| s.leader.is_some() && s.leader != before);
        if timeout_at(until, changed).await.is_ok_and(|r| r.is_err()) {
            sleep_until(until).await;
        }
    }
}

fn local(error: &ProposeError) -> WriteError {
    match error {
        ProposeError::NotLeader { .. } => WriteError::NoLeader,
        ProposeError::Unknown => WriteError::Unknown,
        ProposeError::Busy => WriteError::Busy,
        ProposeError::TooLarge => WriteError::Refused(error.to_string()),
        ProposeError::Stopped(why) => WriteError::Stopped(why.clone()),
    }
}
