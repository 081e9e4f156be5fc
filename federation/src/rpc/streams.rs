//! How many streams of one kind the agents of one cluster may have at this server.
//!
//! One is in use; others are what is left of connections that died without a word. Whoever opens more, opens them to
//! hold our memory.

use super::AgentIdentity;
use sealane_core::identity::ClusterId;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tonic::Status;

/// The streams of one kind that a cluster may have at a server.
const PER_CLUSTER: usize = 4;

/// The open streams of one kind. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Streams(Arc<Mutex<BTreeMap<ClusterId, usize>>>);

/// One open stream; it ends with this.
#[derive(Debug)]
pub(super) struct Place {
    streams: Streams,
    cluster: ClusterId,
}

impl Streams {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<ClusterId, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place for one more.
    pub(super) fn enter(&self, agent: &AgentIdentity) -> Result<Place, Status> {
        let mut open = self.lock();
        let count = open.entry(agent.id).or_insert(0);
        if *count >= PER_CLUSTER {
            return Err(Status::resource_exhausted(format!(
                "cluster {} has {PER_CLUSTER} streams of this kind at this server already: end one of them first",
                agent.name
            )));
        }
        *count += 1;
        Ok(Place { streams: self.clone(), cluster: agent.id })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.streams.lock();
        let left = open.get(&self.cluster).map_or(0, |count| count.saturating_sub(1));
        match left {
            0 => drop(open.remove(&self.cluster)),
            left => drop(open.insert(self.cluster, left)),
        }
    }
}
