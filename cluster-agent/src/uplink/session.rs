//! One session of the catalog stream, without its I/O.
//!
//! Law: one write is under way at a time, and what changes meanwhile is coalesced into the next; nothing waits for
//! silence. A write whose fate is unknown ends with its session: the next session's digests tell what became of it.

use super::changes::{Upward, service_of};
use crate::catalog::Catalog;
use prost::Message;
use sealane_core::command::{CatalogChange, CatalogResult, Refusal};
use sealane_core::name::ServiceKey;
use sealane_core::time::Revision;
use sealane_proto::convert::field;
use sealane_proto::federation::v1 as wire;
use sealane_proto::{Invalid, Wire};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// The most bytes of changes in one write; a single larger change goes alone.
const WRITE_BYTES: usize = 512 * 1024;
/// The most changes in one write.
const WRITE_CHANGES: usize = 1_000;

/// What an acknowledged write says to status.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Acknowledged {
    /// Where the store is.
    pub(super) revision: Revision,
    /// For each service of the write: refused (why) or in effect.
    pub(super) services: BTreeMap<ServiceKey, Option<Refusal>>,
    /// Refusals that are about no service.
    pub(super) others: Vec<Refusal>,
    /// Whether the store now has the whole catalog.
    pub(super) synced: bool,
}

#[derive(Debug)]
struct InFlight {
    sequence: u64,
    services: Vec<Option<ServiceKey>>,
    completes: bool,
}

/// One session, from `want` on.
#[derive(Debug)]
pub(super) struct Session {
    sequence: u64,
    queue: VecDeque<CatalogChange>,
    in_flight: Option<InFlight>,
    /// What the store has once the queue is empty and nothing is in flight.
    sent: Upward,
    synced: bool,
    /// Where the store was when it last took a write.
    revision: Revision,
    /// What was last known to be there.
    settled: Option<Arc<Catalog>>,
}

impl Session {
    /// Answers the store's first question.
    pub(super) fn begin(digested: Upward, want: wire::Want) -> Result<Self, Invalid> {
        let queue = digested.answer(want)?.into();
        Ok(Session {
            sequence: 0,
            queue,
            in_flight: None,
            sent: digested,
            synced: false,
            revision: Revision::default(),
            settled: None,
        })
    }

    /// The next write, if there is something to say and nothing is under way.
    pub(super) fn next(&mut self, desired: &Upward) -> Option<wire::Write> {
        if self.in_flight.is_some() {
            return None;
        }
        if self.queue.is_empty() {
            self.queue = desired.since(&self.sent).into();
            self.sent = desired.clone();
        }
        let mut changes = Vec::new();
        let mut services = Vec::new();
        let (mut bytes, mut completes) = (0, false);
        while let Some(change) = self.queue.pop_front() {
            let message = change.to_wire();
            bytes += message.encoded_len();
            if !changes.is_empty() && (bytes > WRITE_BYTES || changes.len() >= WRITE_CHANGES) {
                self.queue.push_front(change);
                break;
            }
            completes |= matches!(change, CatalogChange::Synced { .. });
            services.push(service_of(&change).cloned());
            changes.push(message);
        }
        if changes.is_empty() {
            return None;
        }
        self.sequence += 1;
        self.in_flight = Some(InFlight { sequence: self.sequence, services, completes });
        Some(wire::Write { sequence: self.sequence, changes })
    }

    /// The catalog that the store has as a whole, and where it is, where that is news.
    pub(super) fn settle(&mut self) -> Option<(Arc<Catalog>, Revision)> {
        let sent = &self.sent.catalog;
        let known = self.settled.as_ref().is_some_and(|settled| Arc::ptr_eq(settled, sent));
        if known || !self.synced || !self.queue.is_empty() || self.in_flight.is_some() {
            return None;
        }
        self.settled = Some(sent.clone());
        Some((sent.clone(), self.revision))
    }

    /// A write was applied.
    pub(super) fn on_written(&mut self, written: wire::Written) -> Result<Acknowledged, Invalid> {
        let Some(flight) = self.in_flight.take_if(|f| f.sequence == written.sequence) else {
            return Err(Invalid::new("written.sequence", "is of no write that is under way"));
        };
        let mut out = Acknowledged {
            revision: field::present(written.revision, "written.revision")?,
            ..Acknowledged::default()
        };
        for service in flight.services.iter().flatten() {
            out.services.insert(service.clone(), None);
        }
        let result: CatalogResult = field::optional(written.result, "written.result")?.unwrap_or_default();
        for (at, refusal) in result.refused {
            let service = usize::try_from(at).ok().and_then(|at| flight.services.get(at)).cloned().flatten();
            match service {
                // The first refusal is the reason; those of its endpoints only follow from it.
                Some(service) => match out.services.get_mut(&service) {
                    Some(slot) if slot.is_none() => *slot = Some(refusal),
                    _ => {}
                },
                None => out.others.push(refusal),
            }
        }
        self.revision = out.revision;
        self.synced |= flight.completes;
        out.synced = self.synced;
        Ok(out)
    }
}

#[cfg(test)]
mod tests;
