//! What a replica says about itself.

use sealane_core::identity::ServerId;
use std::collections::BTreeMap;
use std::time::Instant;

/// A server's part in the current term.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Role {
    /// Follows a leader, or waits for one.
    #[default]
    Follower,
    /// Asks whether it could win an election.
    PreCandidate,
    /// Stands for election.
    Candidate,
    /// Orders the log.
    Leader,
}

/// How far the leader knows a server to have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The last entry that it has on disk.
    pub matched: u64,
    /// Whether it was heard of since the last check of the quorum.
    pub active: bool,
    /// Whether it is being sent a snapshot.
    pub snapshot: bool,
}

/// The state of a replica, refreshed every tick and at every change of role, leader or membership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaftStatus {
    /// This server.
    pub id: ServerId,
    /// Its role.
    pub role: Role,
    /// The term.
    pub term: u64,
    /// The leader of the term, if known.
    pub leader: Option<ServerId>,
    /// The last committed entry known here.
    pub commit: u64,
    /// The last applied entry.
    pub applied: u64,
    /// The last entry in the log.
    pub last: u64,
    /// The first entry still in the log.
    pub first: u64,
    /// What the latest snapshot file covers; 0 without one.
    pub snapshot: u64,
    /// The voters, those on their way out included.
    pub voters: Vec<ServerId>,
    /// The learners.
    pub learners: Vec<ServerId>,
    /// On the leader: every server's progress.
    pub progress: BTreeMap<ServerId, Progress>,
    /// How often the loop stood still for more than a second since the start.
    pub stalls: u64,
    /// How long it stood still the last time, in milliseconds.
    pub stalled_ms: u64,
    /// When the loop last ticked. A reader that finds this more than a second ago must take the replica for stalled.
    pub ticked: Instant,
}

impl RaftStatus {
    /// The status of a replica that has not run yet.
    pub(crate) fn new(id: ServerId) -> Self {
        RaftStatus {
            id,
            role: Role::Follower,
            term: 0,
            leader: None,
            commit: 0,
            applied: 0,
            last: 0,
            first: 1,
            snapshot: 0,
            voters: Vec::new(),
            learners: Vec::new(),
            progress: BTreeMap::new(),
            stalls: 0,
            stalled_ms: 0,
            ticked: Instant::now(),
        }
    }

    /// Whether this server leads.
    pub fn is_leader(&self) -> bool {
        self.role == Role::Leader
    }

    /// Whether another status differs in what others wait for.
    pub(crate) fn turned(&self, other: &Self) -> bool {
        (self.role, self.term, self.leader, self.stalls)
            != (other.role, other.term, other.leader, other.stalls)
            || self.voters != other.voters
            || self.learners != other.learners
    }
}
