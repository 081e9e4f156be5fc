//! `apply`: the only way that the state changes. Total, and the same on every replica.
//!
//! Law: the change is worked out on a draft and then committed, so a refusal changes nothing; only the revision and
//! the time of the log always move on. A replica that can not understand a command stops with a sentence
//! ([`Fatal`]): going on would make it another state than its peers'. Authority is checked here too, so that no
//! server's mistake lets one cluster write another's catalog.

mod admin;
mod authority;
mod catalog;
mod draft;
mod endpoints;
mod exports;
mod issuer;
mod join;
mod profile;
mod servers;
mod session;
#[cfg(test)]
mod tests;

pub use session::FENCE_MS;

use crate::command::{Action, Command, Refusal, Reply, VERSION};
use crate::events::Events;
use crate::state::{RecordKey, State};
use draft::Draft;
use std::collections::BTreeSet;

/// What one command did.
#[derive(Debug, Clone, PartialEq)]
pub struct Applied {
    /// What its proposer is answered.
    pub reply: Reply,
    /// The records to write again, or to delete where [`State::record`] has none any more.
    pub dirty: BTreeSet<RecordKey>,
    /// What changed in meaning.
    pub events: Events,
}

/// Why this replica must stop: going on would part it from its peers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fatal {
    /// The command is newer than this build.
    #[error(
        "entry {index} needs command version {needs}, this build understands {VERSION}: install a newer version of sealane-federation"
    )]
    TooNew {
        /// The entry.
        index: u64,
        /// What it needs.
        needs: u32,
    },
    /// The command is above the version that the servers agreed on, so an older server may be stranded.
    #[error(
        "entry {index} needs command version {needs}, but the federation is at version {at}: this is a defect, report it"
    )]
    AboveClusterVersion {
        /// The entry.
        index: u64,
        /// What it needs.
        needs: u32,
        /// The version that the servers agreed on.
        at: u32,
    },
    /// The log founds the federation a second time.
    #[error("entry {index} founds a federation that exists already: this log belongs to another federation")]
    FoundedTwice {
        /// The entry.
        index: u64,
    },
    /// The log does not begin by founding the federation.
    #[error("entry {index} comes before the federation was founded: the beginning of the log is missing")]
    NotFounded {
        /// The entry.
        index: u64,
    },
    /// The log went back.
    #[error(
        "entry {index} comes after entry {applied} was applied: the log and the state do not belong together"
    )]
    OutOfOrder {
        /// The entry.
        index: u64,
        /// The last applied one.
        applied: u64,
    },
}

impl State {
    /// Applies the command of one log entry.
    ///
    /// # Errors
    /// When this replica must stop; the state is then unchanged.
    pub fn apply(&mut self, index: u64, command: &Command) -> Result<Applied, Fatal> {
        self.admit(index, command)?;
        self.meta.revision.index = index;
        self.meta.now = self.meta.now.max(command.at);
        let mut draft = Draft::new(self.clone());
        let applied = match act(&mut draft, command) {
            Ok(reply) => {
                *self = draft.state;
                Applied { reply, dirty: draft.dirty, events: draft.events }
            }
            Err(refusal) => Applied {
                reply: Reply::Refused(refusal),
                dirty: BTreeSet::from([RecordKey::Meta]),
                events: Events::default(),
            },
        };
        Ok(applied)
    }

    fn admit(&self, index: u64, command: &Command) -> Result<(), Fatal> {
        let needs = command.min_version;
        let found = matches!(command.action, Action::Found { .. });
        if let Action::RaiseVersion { version } = command.action
            && version > VERSION
        {
            return Err(Fatal::TooNew { index, needs: version });
        }
        if needs > VERSION {
            return Err(Fatal::TooNew { index, needs });
        }
        if index <= self.meta.revision.index {
            return Err(Fatal::OutOfOrder { index, applied: self.meta.revision.index });
        }
        match (found, self.is_founded()) {
            (true, true) => Err(Fatal::FoundedTwice { index }),
            (false, false) => Err(Fatal::NotFounded { index }),
            (false, true) if needs > self.meta.cluster_version => {
                Err(Fatal::AboveClusterVersion { index, needs, at: self.meta.cluster_version })
            }
            _ => Ok(()),
        }
    }
}

fn act(draft: &mut Draft, command: &Command) -> Result<Reply, Refusal> {
    let by = command.principal.as_ref();
    match &command.action {
        Action::Found { federation, trust_domain, limits } => {
            authority::server(by)?;
            let meta = &mut draft.state.meta;
            meta.federation = *federation;
            meta.trust_domain = trust_domain.clone();
            meta.limits = *limits;
            // From the command and not from this build: every replica must come to the same version.
            meta.cluster_version = command.min_version.max(1);
            meta.revision.generation = 1;
            Ok(Reply::Done)
        }
        Action::PutServer { id, address, status_address } => {
            authority::this_server(by, *id)?;
            servers::put(draft, *id, address, status_address)
        }
        Action::RaiseVersion { version } => {
            authority::server_or_admin(by)?;
            draft.state.meta.cluster_version = draft.state.meta.cluster_version.max(*version);
            Ok(Reply::Done)
        }
        Action::RemoveServer { id } => {
            authority::server_or_admin(by)?;
            servers::remove(draft, *id)
        }
        Action::Admin { key, action } => {
            let by = authority::admin(by)?;
            Ok(admin::once(draft, by, *key, action))
        }
        Action::Join { token, key, not_after } => {
            authority::server(by)?;
            join::join(draft, token, *key, *not_after)
        }
        Action::JoinByIssuer { proof, key, not_after } => {
            authority::server(by)?;
            issuer::join(draft, proof, *key, *not_after)
        }
        Action::Renew { cluster, key, not_after } => {
            authority::agent(by)?;
            join::renew(draft, by, *cluster, *key, *not_after)
        }
        Action::OpenSession { cluster, session, instance, uid } => {
            authority::agent(by)?;
            session::open(draft, by, *cluster, (*session, *instance), uid.as_ref())
        }
        Action::Catalog { cluster, session, sequence, changes } => {
            authority::agent(by)?;
            catalog::write(draft, by, *cluster, *session, *sequence, changes)
        }
        Action::Lapse { cluster, session } => {
            authority::server(by)?;
            Ok(session::lapse(draft, *cluster, *session))
        }
        Action::Close { cluster, session } => {
            authority::server(by)?;
            Ok(session::close(draft, *cluster, *session))
        }
        Action::Revive { cluster, session } => {
            authority::server(by)?;
            Ok(session::revive(draft, *cluster, *session))
        }
    }
}
