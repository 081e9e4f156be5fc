//! Putting a replica together from what was opened: the same for a real disk and a simulated one.

use crate::consensus::driver::{Actor, Driver, Hands, Snapshots};
use crate::consensus::fault::Fault;
use crate::consensus::inbox::Inbox;
use crate::consensus::machine::{Fatal, StateMachine};
use crate::consensus::node::{Node, NodeConfig, Start};
use crate::consensus::replica::{Replica, Shared};
use crate::consensus::status::RaftStatus;
use crate::consensus::transport::{Link, Transport};
use crate::store::log::RaftLog;
use crate::store::state::StateStore;
use arc_swap::ArcSwap;
use raft::eraftpb::SnapshotMetadata;
use sealane_core::identity::{FederationId, ServerId};
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{broadcast, watch};

/// Rounds that a subscriber may be behind before it is told that it lagged. Each holds a state that shares all but
/// what changed with the next.
const ROUNDS: usize = 256;

/// What a replica is put together from.
pub(crate) struct Parts<M, L> {
    pub(crate) id: ServerId,
    pub(crate) federation: FederationId,
    pub(crate) version: u32,
    pub(crate) tick: Duration,
    pub(crate) node: NodeConfig,
    pub(crate) log: L,
    pub(crate) machine: M,
    pub(crate) applied: SnapshotMetadata,
    pub(crate) image: Box<dyn StateStore>,
    /// The latest verified snapshot.
    pub(crate) snapshot: Option<SnapshotMetadata>,
    pub(crate) snapshots: Arc<dyn Snapshots>,
    /// Where a peer's snapshot is put.
    pub(crate) dir: PathBuf,
    /// Another in every run.
    pub(crate) seed: u64,
    pub(crate) fault: Option<Fault>,
    pub(crate) lock: Option<File>,
    pub(crate) now: Instant,
}

impl<M: StateMachine, L: RaftLog> Parts<M, L> {
    /// The loop, not yet running, and the handle on it.
    pub(crate) fn assemble(
        self,
        connect: impl FnOnce(Link) -> Arc<dyn Transport>,
    ) -> Result<(Driver<M, L>, Replica<M>), Fatal> {
        let Parts { id, federation, version, machine, applied, snapshots, fault, .. } = self;
        let inbox = Arc::new(Inbox::new());
        let link = Link::new(id, federation, self.dir, inbox.clone());
        let shared = Arc::new(Shared {
            inbox,
            state: ArcSwap::from_pointee((applied.index, machine.clone())),
            applied: watch::Sender::new(applied.index),
            rounds: broadcast::Sender::new(ROUNDS),
            status: watch::Sender::new(RaftStatus::new(id)),
            stopped: watch::Sender::new(None),
        });
        let (log, snapshot, seed) = (self.log, self.snapshot, self.seed);
        let node =
            Node::new(Start { id: id.0, log, applied: applied.clone(), snapshot, seed, fault }, self.node)?;
        let actor = Actor::new(Hands {
            machine,
            applied,
            image: self.image,
            transport: connect(link.clone()),
            shared: shared.clone(),
            snapshots,
            federation,
            version,
            fault,
        });
        let driver = Driver {
            node,
            actor,
            shared: shared.clone(),
            tick: self.tick,
            catch_up: u32::try_from(self.node.heartbeat_ticks).unwrap_or(1).max(1),
            status: RaftStatus::new(id),
            last_tick: self.now,
            fault,
            _lock: self.lock,
        };
        Ok((driver, Replica { shared, link }))
    }
}
