//! The seam for the simulator: a replica without thread, clock, disk and network. No part of the server.
//!
//! Everything between these is the real one: link, inbox, driver, node, actor. One [`Station::step`] is one round of
//! the driver.

pub use crate::consensus::driver::{Records, Snapshots};
pub use crate::consensus::fault::Fault;
pub use crate::consensus::node::NodeConfig;
pub use crate::consensus::open::{Fit, fit};
pub use crate::store::log::{Batch, LogError, Position, RaftLog};
pub use crate::store::snapshot::{Header, SnapshotError, retention};
pub use crate::store::state::{Dirty, StateError, StateStore};

use crate::consensus::driver::Driver;
use crate::consensus::inbox::{Control, Waiting};
use crate::consensus::machine::{Fatal, StateMachine};
use crate::consensus::node::{Effect, Input};
use crate::consensus::open::{self, Parts};
use crate::consensus::replica::{ProposeError, ReadError, Replica};
use crate::consensus::status::RaftStatus;
use crate::consensus::transport::{Link, ReceiveError, Transport};
use bytes::Bytes;
use raft::eraftpb::{HardState, SnapshotMetadata};
use sealane_core::identity::{FederationId, ServerId};
use sealane_proto::peer::v1::RaftMessage;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// What a station is put together from.
pub struct Setup<M, L> {
    /// This server.
    pub id: ServerId,
    /// The federation.
    pub federation: FederationId,
    /// The time between ticks.
    pub tick: Duration,
    /// Sizes and times of the consensus.
    pub node: NodeConfig,
    /// The log.
    pub log: L,
    /// The state machine, and how far it has come.
    pub machine: M,
    /// How far it has come.
    pub applied: SnapshotMetadata,
    /// The restart image.
    pub image: Box<dyn StateStore>,
    /// What the latest snapshot covers.
    pub snapshot: Option<SnapshotMetadata>,
    /// The snapshots.
    pub snapshots: Arc<dyn Snapshots>,
    /// Another in every run.
    pub seed: u64,
    /// A deliberate defect.
    pub fault: Option<Fault>,
    /// The time now.
    pub now: Instant,
}

/// What a proposal is answered.
pub type Proposed<R> = oneshot::Receiver<Result<(u64, R), ProposeError>>;
/// What a read is answered.
pub type Asked = oneshot::Receiver<Result<u64, ReadError>>;

/// A replica that runs when it is told to.
pub struct Station<M: StateMachine, L: RaftLog> {
    driver: Driver<M, L>,
    replica: Replica<M>,
}

/// What every founder's log and state begin with.
pub fn founding(voters: &BTreeSet<ServerId>) -> (SnapshotMetadata, HardState) {
    open::founding(voters)
}

impl<M: StateMachine, L: RaftLog> Station<M, L> {
    /// A replica that goes on where its disk stands.
    pub fn new(setup: Setup<M, L>, connect: impl FnOnce(Link) -> Arc<dyn Transport>) -> Result<Self, Fatal> {
        let parts = Parts {
            id: setup.id,
            federation: setup.federation,
            version: sealane_core::command::VERSION,
            tick: setup.tick,
            node: setup.node,
            log: setup.log,
            machine: setup.machine,
            applied: setup.applied,
            image: setup.image,
            snapshot: setup.snapshot,
            snapshots: setup.snapshots,
            dir: PathBuf::new(),
            seed: setup.seed,
            fault: setup.fault,
            lock: None,
            now: setup.now,
        };
        let (driver, replica) = parts.assemble(connect)?;
        Ok(Station { driver, replica })
    }

    /// One round. `before` hears of every effect before it is carried out, and may end the replica there; effects on
    /// the log are the log's own to refuse.
    pub fn step(
        &mut self,
        now: Instant,
        before: &mut dyn FnMut(&'static str) -> Result<(), Fatal>,
    ) -> Result<(), Fatal> {
        // What is there is taken without waiting: the time is never in the future.
        let work = self.driver.shared.inbox.take(Instant::now());
        self.driver.step(work, now, &mut |effect| before(name(effect)))
    }

    /// When the next tick is due.
    pub fn next_tick(&self) -> Instant {
        self.driver.next_tick()
    }

    /// Hands a command over.
    pub fn propose(&self, command: Bytes) -> Result<Proposed<M::Reply>, ProposeError> {
        let (reply, answer) = oneshot::channel();
        self.driver.shared.inbox.propose(Waiting { command, reply })?;
        Ok(answer)
    }

    /// Asks for the index that a read must wait for.
    pub fn read(&self) -> Result<Asked, ReadError> {
        let (reply, answer) = oneshot::channel();
        self.driver.shared.inbox.read(reply)?;
        Ok(answer)
    }

    /// Asks the leader to hand over.
    pub fn transfer(&self, to: ServerId) {
        self.driver.shared.inbox.control(Control::Input(Input::Transfer(to.0)));
    }

    /// Where messages come in and losses are reported.
    pub fn link(&self) -> &Link {
        &self.replica.link
    }

    /// A snapshot came from a peer and rests with the others.
    pub fn installed(&self, peer: ServerId, message: RaftMessage) -> Result<(), ReceiveError> {
        let federation = self.link().federation();
        self.link().installed(peer, &federation.0, message)
    }

    /// The index that the state has reached, and the state.
    pub fn state(&self) -> Arc<(u64, M)> {
        self.replica.state()
    }

    /// What the replica says of itself.
    pub fn status(&self) -> RaftStatus {
        self.driver.shared.status.borrow().clone()
    }
}

fn name(effect: &Effect) -> &'static str {
    match effect {
        Effect::Send(_) => "send",
        Effect::Persist(_) => "persist",
        Effect::Install(_) => "install",
        Effect::Apply(..) => "apply",
        Effect::Answer(..) => "answer",
        Effect::BuildSnapshot(_) => "snapshot",
        Effect::Compact(_) => "compact",
    }
}
