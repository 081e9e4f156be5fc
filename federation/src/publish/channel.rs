//! What one cluster is sent: the latest value of every item of its view, in the order of change.
//!
//! A watcher is a place in that order, so a slow one costs nothing but its place. Law: an item has one place, that of
//! its latest change; what was deleted leaves a tombstone, of which only the latest few thousand are kept, and nobody
//! may resume below the oldest that was forgotten.

use sealane_core::time::Revision;
use sealane_core::view::{ViewItem, ViewKey};
use sealane_proto::Wire;
use sealane_proto::federation::v1 as pb;
use sealane_proto::types::v1 as types;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// How many deletions can be resumed over.
const TOMBSTONES: usize = 8_192;
/// The bytes of items in one delta; a single larger item goes alone.
const CHUNK_BYTES: usize = 256 * 1024;
/// The items and deletions in one delta.
const CHUNK_ITEMS: usize = 1_000;

/// The SHA-256 of an item as it is sent.
pub type Digest = [u8; 32];

/// A place in the order of change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
struct Place {
    revision: Revision,
    n: u32,
}

impl Place {
    fn end_of(revision: Revision) -> Self {
        Place { revision, n: u32::MAX }
    }
}

#[derive(Debug)]
struct Encoded {
    item: types::ViewItem,
    digest: Digest,
    size: usize,
}

#[derive(Debug)]
struct Slot {
    place: Place,
    /// `None` is a tombstone.
    value: Option<Arc<Encoded>>,
}

/// The items of one cluster's view.
#[derive(Debug)]
pub struct Channel {
    slots: BTreeMap<ViewKey, Slot>,
    order: BTreeMap<Place, ViewKey>,
    tombstones: usize,
    floor: Revision,
    head: Revision,
}

impl Channel {
    /// An empty one, as of a revision.
    #[must_use]
    pub fn new(at: Revision) -> Self {
        Channel { slots: BTreeMap::new(), order: BTreeMap::new(), tombstones: 0, floor: at, head: at }
    }

    /// Up to which revision it is complete.
    #[must_use]
    pub fn head(&self) -> Revision {
        self.head
    }

    /// The keys of the items that exist.
    pub fn keys(&self) -> impl Iterator<Item = &ViewKey> {
        self.slots.iter().filter(|(_, slot)| slot.value.is_some()).map(|(key, _)| key)
    }

    /// Everything up to this revision was put.
    pub fn advance(&mut self, to: Revision) {
        self.head = self.head.max(to);
    }

    /// The value of an item as of a revision; says whether that is news.
    pub fn put(&mut self, at: Revision, key: &ViewKey, value: Option<&ViewItem>) -> bool {
        let value = value.map(encode);
        let known = self.slots.get(key);
        let same = match (known.and_then(|k| k.value.as_deref()), &value) {
            (None, None) => true,
            (Some(old), Some(new)) => old.digest == new.digest,
            _ => false,
        };
        if same {
            return false;
        }
        if let Some(old) = known {
            self.tombstones -= usize::from(old.value.is_none());
            self.order.remove(&old.place);
        }
        let n = self.order.range(..=Place::end_of(at)).next_back().filter(|(p, _)| p.revision == at);
        let place = Place { revision: at, n: n.map_or(0, |(p, _)| p.n + 1) };
        self.tombstones += usize::from(value.is_none());
        self.order.insert(place, key.clone());
        self.slots.insert(key.clone(), Slot { place, value: value.map(Arc::new) });
        self.forget();
        true
    }

    fn forget(&mut self) {
        while self.tombstones > TOMBSTONES {
            let dead = |key: &ViewKey| self.slots.get(key).is_some_and(|s| s.value.is_none());
            let oldest = self.order.iter().find(|(_, key)| dead(key)).map(|(p, key)| (*p, key.clone()));
            let Some((place, key)) = oldest else { return };
            self.order.remove(&place);
            self.slots.remove(&key);
            self.tombstones -= 1;
            self.floor = self.floor.max(place.revision);
        }
    }
}

fn encode(item: &ViewItem) -> Encoded {
    let digest = sealane_proto::digest::view_item(item);
    let item = item.to_wire();
    Encoded { digest, size: prost::Message::encoded_len(&item), item }
}

/// Why a watcher can not go on from where it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResumeError {
    /// Deletions since then are forgotten, or this server computes this view since a later revision only.
    #[error("revision {asked} is older than {oldest}, the oldest that this server can resume from")]
    Compacted {
        /// The revision asked for.
        asked: Revision,
        /// The oldest possible.
        oldest: Revision,
    },
    /// This server has not applied that much yet.
    #[error("this server is at revision {head} and has not seen {asked} yet")]
    Ahead {
        /// The revision asked for.
        asked: Revision,
        /// This server's.
        head: Revision,
    },
}

/// One watcher: how far it was sent.
#[derive(Debug)]
pub struct Cursor {
    sent: Place,
    /// What is being sent now goes up to here.
    target: Option<Revision>,
    /// A first run through everything, up to where the digests were compared: the places, in order, whose items the
    /// watcher proved to hold. An item that changes later has a later place.
    held: Option<Vec<Place>>,
    /// What it holds in vain, until it took note of that.
    deletes: Vec<types::ViewKey>,
    /// Whether the watcher still waits for its `Synced`, and of which kind.
    syncing: Option<bool>,
    told: Revision,
}

impl Cursor {
    /// A watcher that gets everything but what it proves to hold, as of now. Of the digests nothing is kept but what
    /// came of them.
    #[must_use]
    pub fn full(channel: &Channel, held: BTreeMap<ViewKey, Digest>) -> Self {
        let (mut same, mut deletes) = (Vec::new(), Vec::new());
        for (key, digest) in held {
            match channel.slots.get(&key).map(|slot| (slot.place, slot.value.as_deref())) {
                Some((place, Some(value))) if value.digest == digest => same.push(place),
                Some((_, Some(_))) => {}
                Some((_, None)) | None => deletes.push(key.to_wire()),
            }
        }
        same.sort_unstable();
        Cursor {
            sent: Place::default(),
            target: Some(channel.head),
            held: Some(same),
            deletes,
            syncing: Some(true),
            told: Revision::default(),
        }
    }

    /// A watcher that goes on after a revision.
    ///
    /// # Errors
    /// When this channel does not reach so far, in either direction.
    pub fn resume(channel: &Channel, after: Revision) -> Result<Self, ResumeError> {
        if after < channel.floor {
            return Err(ResumeError::Compacted { asked: after, oldest: channel.floor });
        }
        if after > channel.head {
            return Err(ResumeError::Ahead { asked: after, head: channel.head });
        }
        let sent = Place::end_of(after);
        Ok(Cursor { sent, target: None, held: None, deletes: Vec::new(), syncing: Some(false), told: after })
    }

    /// The next message for the watcher; `None` when it has everything.
    ///
    /// # Errors
    /// When it was so slow that deletions that it was not sent are forgotten.
    pub fn next(&mut self, channel: &Channel) -> Result<Option<pb::watch_reply::Kind>, ResumeError> {
        while self.target.is_some() || self.sent < Place::end_of(channel.head) {
            if self.held.is_none() && self.sent < Place::end_of(channel.floor) {
                return Err(ResumeError::Compacted { asked: self.sent.revision, oldest: channel.floor });
            }
            let target = *self.target.get_or_insert(channel.head);
            let mut delta = pb::ViewDelta { revision: Some(target.to_wire()), ..Default::default() };
            delta.more = !self.fill(channel, target, &mut delta);
            if !delta.more {
                self.target = None;
                self.held = None;
                self.deletes = Vec::new();
                self.sent = Place::end_of(target);
            }
            if !delta.upserts.is_empty() || !delta.deletes.is_empty() {
                if !delta.more {
                    self.told = target;
                }
                return Ok(Some(pb::watch_reply::Kind::Delta(delta)));
            }
        }
        Ok(self.syncing.take().map(|full| self.tell(full)))
    }

    /// Tells an idle watcher how far it is, if that is news to it.
    pub fn progress(&mut self) -> Option<pb::watch_reply::Kind> {
        let news = self.target.is_none() && self.syncing.is_none() && self.told < self.sent.revision;
        news.then(|| self.tell(false))
    }

    fn tell(&mut self, full: bool) -> pb::watch_reply::Kind {
        self.told = self.sent.revision;
        pb::watch_reply::Kind::Synced(pb::Synced { revision: Some(self.told.to_wire()), full })
    }

    /// Fills a delta; says whether everything up to the target is in it or before it.
    fn fill(&mut self, channel: &Channel, target: Revision, delta: &mut pb::ViewDelta) -> bool {
        let now = self.deletes.len().min(CHUNK_ITEMS);
        delta.deletes.extend(self.deletes.drain(..now));
        let mut bytes = 0;
        let range = (Bound::Excluded(self.sent), Bound::Included(Place::end_of(target)));
        for (place, key) in channel.order.range(range) {
            if delta.upserts.len() + delta.deletes.len() >= CHUNK_ITEMS {
                return false;
            }
            match channel.slots.get(key).and_then(|s| s.value.as_deref()) {
                Some(_) if self.holds(place) => {}
                Some(value) if bytes > 0 && bytes + value.size > CHUNK_BYTES => return false,
                Some(value) => {
                    bytes += value.size;
                    delta.upserts.push(value.item.clone());
                }
                // Of what was gone when the digests were compared, `deletes` has what matters.
                None if self.held.is_some() => {}
                None => delta.deletes.push(key.to_wire()),
            }
            self.sent = *place;
        }
        self.deletes.is_empty()
    }

    fn holds(&self, place: &Place) -> bool {
        self.held.as_ref().is_some_and(|held| held.binary_search(place).is_ok())
    }
}

#[cfg(test)]
mod tests;
