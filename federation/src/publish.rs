//! Views for the clusters that are connected here: computed from applied states, item by item, and kept once for all
//! who watch them.
//!
//! Law: a channel is complete up to the publisher's head, always; a watcher is a place in its channel, so a slow one
//! pins nothing and holds up nobody. A channel without watchers stays for a minute, so that a reconnecting agent can
//! resume. Nothing is computed for clusters that are not connected here.

mod channel;

pub use channel::{Channel, Cursor, Digest, ResumeError};

use crate::consensus::replica::Replica;
use crate::machine::Machine;
use sealane_core::compute::Computation;
use sealane_core::identity::ClusterId;
use sealane_core::incremental;
use sealane_core::time::Revision;
use sealane_core::view::ViewKey;
use sealane_proto::federation::v1::watch_reply::Kind;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How long a channel outlives its last watcher.
const LINGER: Duration = Duration::from_secs(60);

/// The cluster is not a member (any more), as far as this server knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the cluster is not a member of this federation")]
pub struct NotMember;

/// Why a watcher gets no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PullError {
    /// Its cluster is none.
    #[error(transparent)]
    NotMember(#[from] NotMember),
    /// It was so slow that it must begin anew.
    #[error("the client was too slow: {0}")]
    Outrun(#[from] ResumeError),
}

/// Publishes views. Clones share it.
#[derive(Debug, Clone)]
pub struct Publisher(Arc<Mutex<Inner>>);

/// What the publisher does, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Watchers of views.
    pub watchers: usize,
    /// Items of views, each of one cluster, that were computed anew because of a change.
    pub recomputed: u64,
}

#[derive(Debug)]
struct Inner {
    head: Machine,
    channels: BTreeMap<ClusterId, Entry>,
    recomputed: u64,
}

#[derive(Debug)]
struct Entry {
    channel: Channel,
    watchers: usize,
    /// Since when nobody watches.
    idle: Option<Instant>,
    changed: watch::Sender<()>,
}

impl Publisher {
    /// Begins at a state.
    #[must_use]
    pub fn new(head: Machine) -> Self {
        Publisher(Arc::new(Mutex::new(Inner { head, channels: BTreeMap::new(), recomputed: 0 })))
    }

    /// Nothing panics while it holds the lock, except from a defect in `compute`, whose channel is then recomputed
    /// by nobody; a poisoned lock is used on.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves on to a newer state.
    pub fn advance(&self, to: Machine) {
        let mut inner = self.lock();
        if to.revision() > inner.head.revision() {
            inner.advance(to);
        }
    }

    /// The revision that everything is published up to.
    #[must_use]
    pub fn head(&self) -> Revision {
        self.lock().head.revision()
    }

    /// How many watchers there are, and what was computed for them.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let inner = self.lock();
        let watchers = inner.channels.values().map(|entry| entry.watchers).sum();
        Counts { watchers, recomputed: inner.recomputed }
    }

    /// Begins to watch a cluster's view; computes it when nobody did before.
    ///
    /// # Errors
    /// When the cluster is not a member.
    pub fn watch(&self, cluster: ClusterId) -> Result<Watcher, NotMember> {
        let mut inner = self.lock();
        if !inner.head.state.clusters.contains_key(&cluster) {
            return Err(NotMember);
        }
        let Inner { head, channels, .. } = &mut *inner;
        let entry = channels.entry(cluster).or_insert_with(|| Entry::compute(head, cluster));
        entry.watchers += 1;
        entry.idle = None;
        let changed = entry.changed.subscribe();
        Ok(Watcher { publisher: self.clone(), cluster, changed, cursor: None })
    }

    /// Follows a replica until it ends or the token is cancelled.
    pub async fn follow(self, replica: Replica<Machine>, stop: CancellationToken) {
        let mut applied = replica.applied();
        loop {
            self.advance(replica.state().1.clone());
            tokio::select! {
                () = stop.cancelled() => return,
                moved = applied.changed() => if moved.is_err() { return },
            }
        }
    }
}

impl Inner {
    fn advance(&mut self, to: Machine) {
        let now = Instant::now();
        self.channels.retain(|cluster, entry| {
            to.state.clusters.contains_key(cluster)
                && entry.idle.is_none_or(|since| now.saturating_duration_since(since) <= LINGER)
        });
        if self.channels.is_empty() {
            // What nobody watches needs no recomputation, but the journal is to be taken all the same.
            let _ = to.changes_since(&self.head);
        } else {
            match to.changes_since(&self.head) {
                Some(events) if events.is_empty() => {}
                Some(events) => {
                    let items = incremental::affected(&self.head.state, &to.state, &events);
                    self.recompute(&to, items);
                }
                None => self.recompute_all(&to),
            }
        }
        for entry in self.channels.values_mut() {
            entry.channel.advance(to.revision());
        }
        self.head = to;
    }

    fn recompute(&mut self, to: &Machine, items: BTreeSet<(ClusterId, ViewKey)>) {
        let computation = Computation::new(&to.state);
        for (cluster, key) in items {
            let Some(entry) = self.channels.get_mut(&cluster) else { continue };
            let item = computation.item(cluster, &key);
            self.recomputed += 1;
            if entry.channel.put(to.revision(), &key, item.as_ref()) {
                entry.changed.send_replace(());
            }
        }
    }

    /// After a gap: whole views, of which only the differences are news.
    fn recompute_all(&mut self, to: &Machine) {
        let computation = Computation::new(&to.state);
        for (cluster, entry) in &mut self.channels {
            let view = computation.view(*cluster);
            self.recomputed += view.items.len() as u64;
            let gone: Vec<ViewKey> =
                entry.channel.keys().filter(|key| !view.items.contains_key(key)).cloned().collect();
            let mut news = false;
            for key in gone {
                news |= entry.channel.put(to.revision(), &key, None);
            }
            for (key, item) in &view.items {
                news |= entry.channel.put(to.revision(), key, Some(item));
            }
            if news {
                entry.changed.send_replace(());
            }
        }
    }
}

impl Entry {
    fn compute(head: &Machine, cluster: ClusterId) -> Self {
        let mut channel = Channel::new(head.revision());
        for (key, item) in &Computation::new(&head.state).view(cluster).items {
            channel.put(head.revision(), key, Some(item));
        }
        Entry { channel, watchers: 0, idle: None, changed: watch::Sender::new(()) }
    }
}

/// One who watches a cluster's view.
#[derive(Debug)]
pub struct Watcher {
    publisher: Publisher,
    cluster: ClusterId,
    changed: watch::Receiver<()>,
    cursor: Option<Cursor>,
}

impl Watcher {
    /// Goes on after a revision.
    ///
    /// # Errors
    /// When this server can not serve from there; or the cluster was removed.
    pub fn resume(&mut self, after: Revision) -> Result<Result<(), ResumeError>, NotMember> {
        let inner = self.publisher.lock();
        let entry = inner.channels.get(&self.cluster).ok_or(NotMember)?;
        Ok(Cursor::resume(&entry.channel, after).map(|cursor| self.cursor = Some(cursor)))
    }

    /// Begins anew, without what the watcher proves to hold.
    ///
    /// # Errors
    /// When the cluster was removed.
    pub fn restart(&mut self, held: BTreeMap<ViewKey, Digest>) -> Result<(), NotMember> {
        let inner = self.publisher.lock();
        let entry = inner.channels.get(&self.cluster).ok_or(NotMember)?;
        self.cursor = Some(Cursor::full(&entry.channel, held));
        Ok(())
    }

    /// The next message, or `None` when there is nothing to send now (or nothing was asked for yet).
    ///
    /// # Errors
    /// When the cluster was removed, or the watcher must begin anew.
    pub fn pull(&mut self) -> Result<Option<Kind>, PullError> {
        self.changed.mark_unchanged();
        let inner = self.publisher.lock();
        let entry = inner.channels.get(&self.cluster).ok_or(NotMember)?;
        let Some(cursor) = &mut self.cursor else { return Ok(None) };
        Ok(cursor.next(&entry.channel)?)
    }

    /// Tells an idle watcher how far it is, if that is news.
    ///
    /// # Errors
    /// As [`Watcher::pull`].
    pub fn progress(&mut self) -> Result<Option<Kind>, PullError> {
        let next = self.pull()?;
        Ok(next.or_else(|| self.cursor.as_mut().and_then(Cursor::progress)))
    }

    /// Waits for a change of the view.
    ///
    /// # Errors
    /// When the cluster was removed.
    pub async fn changed(&mut self) -> Result<(), NotMember> {
        self.changed.changed().await.map_err(|_| NotMember)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some(entry) = self.publisher.lock().channels.get_mut(&self.cluster) {
            entry.watchers = entry.watchers.saturating_sub(1);
            if entry.watchers == 0 {
                entry.idle = Some(Instant::now());
            }
        }
    }
}

#[cfg(test)]
mod tests;
