//! The view that the agent holds: received as deltas, applied whole, kept on disk.
//!
//! Law: a revision never goes backwards and the federation never changes under us; whoever sends otherwise is
//! refused and the last view stands. A deletion takes effect by a delta, or at the `synced` of a resync; until then
//! everything stays.

mod file;

pub use file::{HeldFile, ViewFileError, load, save};

use imbl::OrdMap;
use sealane_core::identity::FederationId;
use sealane_core::name::{ClusterName, ServiceKey};
use sealane_core::time::Revision;
use sealane_core::view::{ExportStatus, Import, Peer, ViewItem, ViewKey};
use sealane_proto::convert::field;
use sealane_proto::federation::v1 as wire;
use sealane_proto::federation::v1::watch_reply::Kind;
use sealane_proto::{Invalid, Wire, hello};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The most items that one view may have.
const MAX_ITEMS: usize = 1_000_000;

/// Where a view came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// There is none yet.
    Nothing,
    /// From disk: the store has not been heard since this process began.
    Disk,
    /// From the store.
    Store,
}

/// A view as of a revision. A clone is cheap.
#[derive(Debug, Clone, PartialEq)]
pub struct Held {
    /// Where it came from.
    pub origin: Origin,
    /// The revision that it is of.
    pub revision: Revision,
    /// What the store said that the view covers; part of a resume token.
    pub scope: Vec<u8>,
    /// The items.
    pub items: OrdMap<ViewKey, ViewItem>,
}

impl Held {
    /// No view yet.
    #[must_use]
    pub fn nothing() -> Self {
        let (revision, scope, items) = (Revision::default(), Vec::new(), OrdMap::new());
        Held { origin: Origin::Nothing, revision, scope, items }
    }

    /// The view of a cluster that the federation said goodbye to at this revision: it has nothing, and without a scope no
    /// stream is resumed from it.
    #[must_use]
    pub fn over(revision: Revision) -> Self {
        Held { origin: Origin::Store, revision, ..Held::nothing() }
    }

    /// Whether the federation said goodbye.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.origin != Origin::Nothing && self.scope.is_empty() && self.items.is_empty()
    }

    /// The imports.
    pub fn imports(&self) -> impl Iterator<Item = &Arc<Import>> {
        self.items.values().filter_map(|item| match item {
            ViewItem::Import(import) => Some(import),
            _ => None,
        })
    }

    /// The peers.
    pub fn peers(&self) -> impl Iterator<Item = &Arc<Peer>> {
        self.items.values().filter_map(|item| match item {
            ViewItem::Peer(peer) => Some(peer),
            _ => None,
        })
    }

    /// An import.
    #[must_use]
    pub fn import(&self, service: &ServiceKey) -> Option<&Arc<Import>> {
        match self.items.get(&ViewKey::Import(service.clone())) {
            Some(ViewItem::Import(import)) => Some(import),
            _ => None,
        }
    }

    /// A peer.
    #[must_use]
    pub fn peer(&self, cluster: &ClusterName) -> Option<&Arc<Peer>> {
        match self.items.get(&ViewKey::Peer(cluster.clone())) {
            Some(ViewItem::Peer(peer)) => Some(peer),
            _ => None,
        }
    }

    /// How an export of this cluster stands.
    #[must_use]
    pub fn export(&self, service: &ServiceKey) -> Option<&Arc<ExportStatus>> {
        match self.items.get(&ViewKey::Export(service.clone())) {
            Some(ViewItem::Export(status)) => Some(status),
            _ => None,
        }
    }
}

/// A message that was not taken; the last view stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ViewError {
    /// The sender is of another federation.
    #[error("the server is of the federation {found}, and this cluster joined {pinned}")]
    WrongFederation {
        /// What the server said.
        found: String,
        /// What joining brought.
        pinned: FederationId,
    },
    /// The sender takes us for another cluster.
    #[error("the server sends the view of {0:?}, another cluster")]
    WrongCluster(String),
    /// The sender is behind what we have.
    #[error("the server is at revision {found}, behind {held} that is held already")]
    Backwards {
        /// What came.
        found: Revision,
        /// What is held.
        held: Revision,
    },
    /// A message broke the protocol.
    #[error("unexpected message: {0}")]
    Protocol(&'static str),
    /// A message is not a domain value.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// Both sides have no protocol version in common.
    #[error(transparent)]
    Incompatible(#[from] hello::Incompatible),
}

/// What to do after a message.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Nothing yet.
    Wait,
    /// There is a new view.
    Publish(Arc<Held>),
    /// Subscribe again, with digests of what is held.
    Resubscribe(String),
}

/// The receiving end of one stream. Pure.
#[derive(Debug)]
pub struct Receiver {
    federation: FederationId,
    cluster: ClusterName,
    held: Arc<Held>,
    scope: Option<Vec<u8>>,
    /// Not applied yet: the rest of the delta, or of the resync, is still to come.
    upserts: BTreeMap<ViewKey, Option<ViewItem>>,
    resync: bool,
}

impl Receiver {
    /// Begins a stream by what is held.
    #[must_use]
    pub fn new(federation: FederationId, cluster: ClusterName, held: Arc<Held>) -> Self {
        let resync = held.origin == Origin::Nothing;
        Receiver { federation, cluster, held, scope: None, upserts: BTreeMap::new(), resync }
    }

    /// The first message of the stream.
    #[must_use]
    pub fn subscribe(&self) -> wire::Subscribe {
        let resume = (!self.resync).then(|| wire::ResumeToken {
            federation: self.federation.0.to_vec(),
            revision: Some(self.held.revision.to_wire()),
            scope: self.held.scope.clone(),
        });
        wire::Subscribe { hello: Some(hello::hello(Some(self.federation))), resume, held: Vec::new() }
    }

    /// The message that follows a refused resume: what is held, by digests.
    #[must_use]
    pub fn resubscribe(&mut self) -> wire::Subscribe {
        self.resync = true;
        self.upserts.clear();
        let digest = |(key, item): (&ViewKey, &ViewItem)| wire::ItemDigest {
            key: Some(key.to_wire()),
            digest: sealane_proto::digest::view_item(item).to_vec(),
        };
        let held = self.held.items.iter().map(digest).collect();
        wire::Subscribe { hello: Some(hello::hello(Some(self.federation))), resume: None, held }
    }

    /// Takes a message in.
    ///
    /// # Errors
    /// When it is refused: the stream is of no use then, and the last view stands.
    pub fn on(&mut self, kind: Kind) -> Result<Step, ViewError> {
        match kind {
            Kind::Subscribed(subscribed) => self.on_subscribed(subscribed),
            Kind::ResumeRefused(refused) if !self.resync => Ok(Step::Resubscribe(refused.reason)),
            Kind::ResumeRefused(_) => Err(ViewError::Protocol("a resync was refused")),
            Kind::Delta(delta) => self.on_delta(delta),
            Kind::Synced(synced) => {
                let revision: Revision = field::present(synced.revision, "synced.revision")?;
                self.forward(revision)?;
                self.resync = false;
                Ok(self.publish(revision))
            }
        }
    }

    fn on_subscribed(&mut self, subscribed: wire::Subscribed) -> Result<Step, ViewError> {
        let theirs = subscribed.hello.unwrap_or_default();
        hello::negotiate(&hello::hello(None), &theirs)?;
        match hello::federation(&theirs)? {
            Some(id) if id == self.federation => {}
            other => {
                let found = other.map_or_else(|| "none".to_owned(), |id| id.to_string());
                return Err(ViewError::WrongFederation { found, pinned: self.federation });
            }
        }
        if subscribed.cluster != self.cluster.as_str() {
            return Err(ViewError::WrongCluster(subscribed.cluster));
        }
        self.scope = Some(subscribed.scope);
        Ok(Step::Wait)
    }

    fn on_delta(&mut self, delta: wire::ViewDelta) -> Result<Step, ViewError> {
        let revision: Revision = field::present(delta.revision, "delta.revision")?;
        self.forward(revision)?;
        for (at, item) in delta.upserts.into_iter().enumerate() {
            let item: ViewItem = field::inner(item, &format!("upserts[{at}]"))?;
            self.upserts.insert(key_of(&item), Some(item));
        }
        for (at, key) in delta.deletes.into_iter().enumerate() {
            self.upserts.insert(field::inner(key, &format!("deletes[{at}]"))?, None);
        }
        if self.upserts.len() > MAX_ITEMS {
            return Err(ViewError::Protocol("a view of more items than are taken"));
        }
        if delta.more || self.resync {
            return Ok(Step::Wait);
        }
        Ok(self.publish(revision))
    }

    fn forward(&self, found: Revision) -> Result<(), ViewError> {
        if self.scope.is_none() {
            return Err(ViewError::Protocol("the server did not say who it is"));
        }
        let held = self.held.revision;
        if found < held { Err(ViewError::Backwards { found, held }) } else { Ok(()) }
    }

    fn publish(&mut self, revision: Revision) -> Step {
        let mut next = Held::clone(&self.held);
        next.origin = Origin::Store;
        next.revision = revision;
        next.scope = self.scope.clone().unwrap_or_default();
        for (key, item) in std::mem::take(&mut self.upserts) {
            match item {
                Some(item) => next.items.insert(key, item),
                None => next.items.remove(&key),
            };
        }
        self.held = Arc::new(next);
        Step::Publish(self.held.clone())
    }
}

fn key_of(item: &ViewItem) -> ViewKey {
    match item {
        ViewItem::Import(import) => ViewKey::Import(import.service.clone()),
        ViewItem::Export(export) => ViewKey::Export(export.service.clone()),
        ViewItem::Peer(peer) => ViewKey::Peer(peer.name.clone()),
    }
}

#[cfg(test)]
mod tests;
