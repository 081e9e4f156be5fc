//! What must hold of every history, one property a file.
//!
//! A property sees everything that happens and is asked nothing else; it says in a sentence what did not hold.

mod acknowledged;
mod agreement;
mod convergence;
mod effects;
mod leaders;
mod revisions;
mod soundness;
mod votes;

use super::client::Client;
use super::machine::{Noted, Observed, Op};
use sealane_proto::peer::v1::RaftMessage;
use std::fmt;
use std::sync::Arc;

/// What did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The property.
    pub property: &'static str,
    /// The sentence.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.property, self.what)
    }
}

/// A server at the end.
pub(super) struct Final {
    pub(super) server: u64,
    pub(super) state: Arc<(u64, Observed)>,
}

/// What happened.
pub(super) enum Seen<'a> {
    /// A process began with the state of this index.
    Started { server: u64, index: u64 },
    /// A server applied a command.
    Applied { server: u64, noted: &'a Noted },
    /// A server's state after a round.
    State { server: u64, index: u64 },
    /// A message left a server.
    Sent { from: u64, message: &'a RaftMessage },
    /// A client learned that its command is in effect.
    Acknowledged { op: Op, index: u64 },
    /// A client read, having asked when this was acknowledged already.
    Read { server_state: u64, floor: u64 },
    /// The federation had time to converge; every client's last matter was begun after the network healed, or not.
    End { finals: &'a [Final], clients: &'a [Client], healed: u64 },
}

/// A property.
pub(super) trait Property {
    /// Its name.
    fn name(&self) -> &'static str;
    /// Sees something, and says what does not hold.
    fn see(&mut self, seen: &Seen<'_>) -> Result<(), String>;
}

/// All of them.
pub(super) struct Properties(Vec<Box<dyn Property>>);

impl Properties {
    pub(super) fn all() -> Self {
        Properties(vec![
            // First: a replica that lags at the end has lost nothing yet.
            Box::new(convergence::Convergence),
            Box::new(acknowledged::AcknowledgedNeverLost::default()),
            Box::new(agreement::ReplicasAgree::default()),
            Box::new(revisions::RevisionsNeverGoBack::default()),
            Box::new(effects::OneEffect::default()),
            Box::new(leaders::OneLeaderATerm::default()),
            Box::new(votes::OneVoteATerm::default()),
            Box::new(soundness::StateIsSound),
        ])
    }

    pub(super) fn see(&mut self, seen: &Seen<'_>) -> Result<(), Violation> {
        for property in &mut self.0 {
            property.see(seen).map_err(|what| Violation { property: property.name(), what })?;
        }
        Ok(())
    }
}
