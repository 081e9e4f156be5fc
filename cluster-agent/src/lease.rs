//! Who of the replicas writes: one at a time holds the cluster's Lease (`coordination.k8s.io`).
//!
//! Law: a write that began while [`Leadership::may_write`] said yes, and ends within [`WRITE`] as every write must, is
//! over before another replica may begin one. The holder's right ends by its own monotonic clock, one write before the
//! Lease does; another replica takes the Lease only after it saw it unchanged for its whole duration by a clock of its own.
//! A holder that was stopped for a while (SIGSTOP) finds its right over when it goes on. From a process that is known to be
//! dead ([`Name`]) the Lease is taken at once: requests that the API server may still be at when its connection ends are
//! bound to the versions that they change, and what they make is put right when the watch tells of it.
//!
//! While no other holder is seen the *term* lasts, also when the right to write does not: an API server that is away for
//! everybody does not end the catalog session.

mod keeper;
mod name;

pub use keeper::{Keeper, keep};
pub use name::{Name, Processes};

use jiff::Timestamp;
use sealane_core::identity::InstanceId;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// How long a Lease holds without being renewed.
pub const DURATION: Duration = Duration::from_secs(10);
/// How long one write may take: a request under the Lease that takes longer must be given up.
pub const WRITE: Duration = Duration::from_secs(4);
/// How often it is renewed, or looked at.
pub const RENEW: Duration = Duration::from_secs(2);

/// What a replica may do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Another replica writes, or nobody does.
    Follower,
    /// This one does.
    Leader {
        /// Counts the times that the Lease was taken; higher ones are later.
        term: u32,
        /// When the right to begin a write ends, unless it is renewed; `None` for ever.
        until: Option<Instant>,
        /// Who all replicas are together to the store: those that share one Lease. `None` without replicas.
        agent: Option<InstanceId>,
    },
}

/// A replica's standing, to be checked before each write.
#[derive(Debug, Clone)]
pub struct Leadership(watch::Receiver<Standing>);

impl Leadership {
    /// Follows a standing.
    #[must_use]
    pub fn new(standing: watch::Receiver<Standing>) -> Self {
        Leadership(standing)
    }

    /// That of an agent without replicas, in its one and only term.
    #[must_use]
    pub fn alone() -> Self {
        // A receiver keeps the last value when the sender is gone.
        Leadership(watch::Sender::new(Standing::Leader { term: 0, until: None, agent: None }).subscribe())
    }

    /// Whether a write may begin now.
    #[must_use]
    pub fn may_write(&self) -> bool {
        match *self.0.borrow() {
            Standing::Follower => false,
            Standing::Leader { until, .. } => until.is_none_or(|until| Instant::now() < until),
        }
    }

    /// The term, while no other holder is seen.
    #[must_use]
    pub fn term(&self) -> Option<u32> {
        match *self.0.borrow() {
            Standing::Follower => None,
            Standing::Leader { term, .. } => Some(term),
        }
    }

    /// Who all replicas are together, while there is a term.
    #[must_use]
    pub fn agent(&self) -> Option<InstanceId> {
        match *self.0.borrow() {
            Standing::Follower => None,
            Standing::Leader { agent, .. } => agent,
        }
    }

    /// Waits until a write may begin. Never returns when that can not come any more.
    pub async fn writable(&mut self) {
        while !self.may_write() {
            if self.0.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits for a term. Never returns when none can come any more.
    pub async fn begun(&mut self) -> u32 {
        loop {
            self.0.borrow_and_update();
            if let Some(term) = self.term() {
                return term;
            }
            if self.0.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until this term is over. Never returns when it can not end any more.
    pub async fn over(&mut self, term: u32) {
        loop {
            self.0.borrow_and_update();
            if self.term() != Some(term) {
                return;
            }
            if self.0.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// The Lease as the API server has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Which Lease it is: one that was deleted and made again is another one.
    pub uid: String,
    /// Who holds it; `None` when it was given back.
    pub holder: Option<String>,
    /// How long it holds without being renewed, as its holder wrote.
    pub duration: Duration,
    /// How often it went from one holder to the next.
    pub transitions: u32,
    /// When its holder took it, by that one's clock: for people, nothing is decided by it.
    pub acquired: Option<Timestamp>,
    /// Changes with every write; an update of another version is refused.
    pub version: String,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Read the Lease.
    Look,
    /// Write the Lease, as held in this term, over this version (`None`: create it).
    Write {
        /// The term that the write begins or goes on with.
        term: u32,
        /// What is written over.
        over: Option<String>,
        /// When the term began; `None` when it begins with this write.
        acquired: Option<Timestamp>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    Nothing,
    Absent,
    Record { record: Record, since: Instant },
}

/// One replica's part in the election, without its I/O.
#[derive(Debug, Clone)]
pub struct Election {
    me: Name,
    seen: Seen,
    held: Option<Term>,
}

/// A term of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    number: u32,
    /// The Lease that it is of.
    lease: String,
    /// When the request began that renewed it last.
    renewed: Instant,
}

impl Election {
    /// A replica that knows nothing yet.
    #[must_use]
    pub fn new(me: Name) -> Self {
        Election { me, seen: Seen::Nothing, held: None }
    }

    /// What this replica may do, by what it knows.
    #[must_use]
    pub fn standing(&self) -> Standing {
        match &self.held {
            None => Standing::Follower,
            Some(held) => Standing::Leader {
                term: held.number,
                until: Some(held.renewed + (DURATION - WRITE)),
                agent: Some(agent(&held.lease)),
            },
        }
    }

    /// Who holds the Lease, as far as is known.
    #[must_use]
    pub fn holder(&self) -> Option<&str> {
        match &self.seen {
            Seen::Record { record, .. } => record.holder.as_deref(),
            Seen::Nothing | Seen::Absent => None,
        }
    }

    /// How often the Lease went from one holder to the next, as far as is known.
    #[must_use]
    pub fn transitions(&self) -> Option<u32> {
        match &self.seen {
            Seen::Record { record, .. } => Some(record.transitions),
            Seen::Nothing | Seen::Absent => None,
        }
    }

    /// Whether the Lease must be read before anything else.
    #[must_use]
    pub fn is_blind(&self) -> bool {
        self.seen == Seen::Nothing
    }

    /// What to do now.
    #[must_use]
    pub fn step(&self, now: Instant) -> Step {
        let (record, since) = match &self.seen {
            Seen::Nothing => return Step::Look,
            Seen::Absent => return self.begin(None),
            Seen::Record { record, since } => (record, *since),
        };
        match &record.holder {
            Some(_) if self.holds(record) => Step::Write {
                term: record.transitions,
                over: Some(record.version.clone()),
                acquired: record.acquired,
            },
            // Written by a request of this process whose answer was lost: no other has its name.
            Some(holder) if *holder == self.me.own => self.begin(Some(record)),
            Some(holder) if self.me.former.contains(holder) => self.begin(Some(record)),
            Some(_) if now.duration_since(since) < record.duration => Step::Look,
            _ => self.begin(Some(record)),
        }
    }

    /// Begins a term: one higher than any that is known, so that a Lease that somebody deleted does not bring a term back. That
    /// of the first holder is 0, as everybody counts transitions.
    fn begin(&self, over: Option<&Record>) -> Step {
        let known = over.map(|record| record.transitions).max(self.held.as_ref().map(|held| held.number));
        let term = known.map_or(0, |known| known.saturating_add(1));
        Step::Write { term, over: over.map(|record| record.version.clone()), acquired: None }
    }

    /// Whether a Lease says that our term lasts.
    fn holds(&self, record: &Record) -> bool {
        record.holder.as_deref() == Some(self.me.own.as_str())
            && self.held.as_ref().is_some_and(|h| h.number == record.transitions && h.lease == record.uid)
    }

    /// The Lease was read; `now` is when the answer was there.
    pub fn saw(&mut self, now: Instant, found: Option<Record>) {
        let Some(record) = found else {
            // Deleted: who held it writes it anew at once, the others when it would have ended.
            let anothers = matches!(&self.seen, Seen::Record { record, .. } if record.holder.is_some());
            if self.held.is_some() || !anothers {
                self.seen = Seen::Absent;
            }
            return;
        };
        if !self.holds(&record) {
            self.held = None;
        }
        let since = match &self.seen {
            Seen::Record { record: known, since } if known.version == record.version => *since,
            _ => now,
        };
        self.seen = Seen::Record { record, since };
    }

    /// A write succeeded that began then.
    pub fn wrote(&mut self, began: Instant, record: Record) {
        self.held = Some(Term { number: record.transitions, lease: record.uid.clone(), renewed: began });
        self.seen = Seen::Record { record, since: began };
    }

    /// A write was refused because somebody else wrote meanwhile.
    pub fn refused(&mut self) {
        self.seen = Seen::Nothing;
    }
}

fn agent(lease: &str) -> InstanceId {
    let hash = sealane_trust::sha256(lease.as_bytes());
    let mut id = [0; 16];
    id.copy_from_slice(&hash[..16]);
    InstanceId(id)
}

#[cfg(test)]
mod tests;
