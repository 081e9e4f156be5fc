//! Opening a replica: from an empty directory or from what rests in one, never by forgetting anything.

mod load;
mod parts;

use crate::consensus::driver::Files;
use crate::consensus::machine::{Fatal, StateMachine};
use crate::consensus::node::NodeConfig;
use crate::consensus::replica::Replica;
use crate::consensus::transport::{Link, Transport};
use crate::store::durable;
use crate::store::log::LogError;
use crate::store::log::wal::{Wal, WalConfig};
use crate::store::marker::{Marker, MarkerError};
use crate::store::snapshot::{Header, SnapshotError, Writer};
use crate::store::state::StateError;
use load::Loaded;
#[doc(hidden)]
pub use load::{Fit, fit};
pub(crate) use parts::Parts;
use raft::eraftpb::{HardState, SnapshotMetadata};
use rustix::fs::{FlockOperation, flock};
use sealane_core::identity::{FederationId, ServerId};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Where a new directory is made ready before anything gets its final name.
const UNFINISHED: &str = "unfinished";

/// What a replica is made of.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where everything rests.
    pub dir: PathBuf,
    /// This server.
    pub id: ServerId,
    /// The federation.
    pub federation: FederationId,
    /// The highest version of the command set that this build understands.
    pub version: u32,
    /// The time between ticks.
    pub tick: Duration,
    /// Sizes and times of the consensus.
    pub node: NodeConfig,
    /// Sizes of the log.
    pub wal: WalConfig,
}

impl Config {
    /// The usual sizes and times: a lost leader is replaced in less than a second.
    pub fn new(dir: PathBuf, id: ServerId, federation: FederationId) -> Self {
        Config {
            dir,
            id,
            federation,
            version: sealane_core::command::VERSION,
            tick: Duration::from_millis(25),
            node: NodeConfig::default(),
            wal: WalConfig::default(),
        }
    }
}

/// What is expected in the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bootstrap {
    /// Nothing: these servers, each started so, make a new federation.
    Found {
        /// All of them, this one included.
        voters: BTreeSet<ServerId>,
    },
    /// Nothing: the leader adds this server, under an id that no server ever had.
    Join,
    /// What this server left there.
    Restart,
}

/// Why a replica does not start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory refused.
    #[error("could not {doing} {path}: {source}", path = path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// The system's complaint.
        source: io::Error,
    },
    /// Another process holds it.
    #[error("{path} is in use by another process", path = .0.display())]
    InUse(PathBuf),
    /// The marker refuses.
    #[error(transparent)]
    Marker(#[from] MarkerError),
    /// There is something where nothing should be.
    #[error("{path} holds server {found} of a federation already: start it without founding or joining", path = path.display())]
    Occupied {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        found: ServerId,
    },
    /// There is a log without a marker.
    #[error(
        "{path} holds a log but no marker, so it can not be told whose it is: restore the marker, rejoin as a new \
         server from an empty directory, or, if this is the last disk of the federation, run \
         `sealane-federation recover --force-new-cluster`",
        path = .0.display()
    )]
    Unmarked(PathBuf),
    /// There is nothing where something should be.
    #[error("{path} holds no server: found a federation with `init`, or join one with a token", path = .0.display())]
    Empty(PathBuf),
    /// It is another server's.
    #[error(
        "{path} belongs to server {found_server} of federation {found_federation}, and this is server {server} of \
         {federation}",
        path = path.display()
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        found_server: ServerId,
        /// Of which federation.
        found_federation: FederationId,
        /// Who asks.
        server: ServerId,
        /// Of which federation.
        federation: FederationId,
    },
    /// The log refuses.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A snapshot refuses.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The image refuses for another reason than damage.
    #[error(transparent)]
    State(#[from] StateError),
    /// The log lost what the image holds.
    #[error(
        "the restart image has applied entry {applied}, but the log ends at {last}: entries that were acknowledged are \
         lost, and the server does not start. Rejoin it as a new server, or, if this is the last disk of the \
         federation, run `sealane-federation recover --force-new-cluster`"
    )]
    LogTooShort {
        /// What was applied.
        applied: u64,
        /// Where the log ends.
        last: u64,
    },
    /// The log holds another entry where the image has one that was committed.
    #[error(
        "the restart image has applied entry {applied} of term {term}, but the log holds another entry there: entries \
         that were acknowledged are lost, and the server does not start. Put back the log that belongs to the image, \
         rejoin as a new server, or, if this is the last disk of the federation, run \
         `sealane-federation recover --force-new-cluster`"
    )]
    LogReplaced {
        /// What was applied.
        applied: u64,
        /// In which term it was written.
        term: u64,
    },
    /// Neither image nor snapshot reaches to where the log begins.
    #[error(
        "the log begins at entry {first}, and no restart image and no whole snapshot reaches that far. Rejoin the \
         server as a new one, or, if this is the last disk of the federation, run \
         `sealane-federation recover --force-new-cluster`"
    )]
    NoState {
        /// Where the log begins.
        first: u64,
    },
    /// The machine or raft refuses.
    #[error(transparent)]
    Fatal(#[from] Fatal),
}

pub(crate) fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io { doing, path, source }
}

/// The places in a directory.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) dir: PathBuf,
}

impl Layout {
    pub(crate) fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    pub(crate) fn snapshots(&self) -> PathBuf {
        self.dir.join("snapshots")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// Holds the directory for this process; the lock lives as long as the file.
    pub(crate) fn lock(&self) -> Result<File, OpenError> {
        durable::create_dir(&self.dir).map_err(io_error("create", &self.dir))?;
        let path = self.dir.join("lock");
        let options = File::options().write(true).create(true).truncate(false).open(&path);
        let file = options.map_err(io_error("open", &path))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::InUse(self.dir.clone())),
            Err(e) => Err(io_error("lock", &path)(e.into())),
        }
    }
}

/// What a new storage starts from.
pub(crate) struct Seed<'a, R: IntoIterator<Item = crate::consensus::machine::Record>> {
    pub(crate) header: &'a Header,
    pub(crate) hard_state: &'a HardState,
    pub(crate) records: R,
}

/// Makes log and snapshots of a new storage in `at`.
pub(crate) fn lay_out<R>(at: &Layout, wal: WalConfig, seed: Seed<'_, R>) -> Result<Wal, OpenError>
where
    R: IntoIterator<Item = crate::consensus::machine::Record>,
{
    let snapshots = at.snapshots();
    durable::create_dir(&at.dir).map_err(io_error("create", &at.dir))?;
    durable::create_dir(&snapshots).map_err(io_error("create", &snapshots))?;
    let position = seed.header.position();
    if position.index > 0 {
        let mut writer = Writer::create(&snapshots, seed.header)?;
        for record in seed.records {
            writer.push(&record)?;
        }
        crate::store::snapshot::verify(&writer.finish()?)?;
    }
    Ok(Wal::create(&at.log(), wal, position, seed.hard_state, rand::random())?)
}

/// The beginning of a federation: every founder writes the same, as if entry 1 of term 1 had named the voters. A server
/// that joins later can so never find the log whole without the snapshot that names them.
pub(crate) fn founding(voters: &BTreeSet<ServerId>) -> (SnapshotMetadata, HardState) {
    let mut metadata = SnapshotMetadata::default();
    let mut hard_state = HardState::default();
    if !voters.is_empty() {
        (metadata.index, metadata.term) = (1, 1);
        (hard_state.term, hard_state.commit) = (1, 1);
    }
    metadata.mut_conf_state().set_voters(voters.iter().map(|id| id.0).collect());
    (metadata, hard_state)
}

fn make_storage<M: StateMachine>(
    layout: &Layout,
    config: &Config,
    voters: &BTreeSet<ServerId>,
) -> Result<(), OpenError> {
    let unfinished = Layout { dir: layout.dir.join(UNFINISHED) };
    if unfinished.dir.exists() {
        // A crash while founding or joining: nothing here was ever answered to anyone.
        for dir in [unfinished.dir.clone(), layout.log(), layout.snapshots(), layout.state()] {
            if dir.exists() {
                fs::remove_dir_all(&dir).map_err(io_error("remove", &dir))?;
            }
        }
    } else if layout.log().exists() {
        return Err(OpenError::Unmarked(layout.dir.clone()));
    }
    let (metadata, hard_state) = founding(voters);
    let machine = M::restore(std::iter::empty())?;
    let header = Header { metadata, min_version: machine.min_version(), federation: config.federation };
    let seed = Seed { header: &header, hard_state: &hard_state, records: machine.records() };
    drop(lay_out(&unfinished, config.wal, seed)?);
    for (from, to) in [(unfinished.log(), layout.log()), (unfinished.snapshots(), layout.snapshots())] {
        durable::rename(&from, &to).map_err(io_error("rename", &from))?;
    }
    Marker { federation: config.federation, server: config.id, storage: rand::random() }
        .store(&layout.dir)?;
    fs::remove_dir(&unfinished.dir).map_err(io_error("remove", &unfinished.dir))
}

/// Checks whose directory it is, and makes a new one where that is asked for.
fn prepare<M: StateMachine>(
    layout: &Layout,
    config: &Config,
    bootstrap: &Bootstrap,
) -> Result<(), OpenError> {
    let marker = Marker::load(&layout.dir)?;
    match (marker, bootstrap) {
        (None, Bootstrap::Found { voters }) => make_storage::<M>(layout, config, voters),
        (None, Bootstrap::Join) => make_storage::<M>(layout, config, &BTreeSet::new()),
        (None, Bootstrap::Restart) if layout.log().exists() => Err(OpenError::Unmarked(layout.dir.clone())),
        (None, Bootstrap::Restart) => Err(OpenError::Empty(layout.dir.clone())),
        (Some(found), Bootstrap::Found { .. } | Bootstrap::Join) => {
            Err(OpenError::Occupied { path: layout.dir.clone(), found: found.server })
        }
        (Some(found), Bootstrap::Restart) => {
            if (found.server, found.federation) == (config.id, config.federation) {
                return Ok(());
            }
            Err(OpenError::Foreign {
                path: layout.dir.clone(),
                found_server: found.server,
                found_federation: found.federation,
                server: config.id,
                federation: config.federation,
            })
        }
    }
}

/// Opens a replica and starts its thread. Reads the disk: not for an async thread.
///
/// `connect` is given the link on which the transport reports, and gives the transport.
pub fn open<M: StateMachine>(
    config: &Config,
    bootstrap: &Bootstrap,
    connect: impl FnOnce(Link) -> Arc<dyn Transport>,
) -> Result<Replica<M>, OpenError> {
    let layout = Layout { dir: config.dir.clone() };
    let lock = layout.lock()?;
    prepare::<M>(&layout, config, bootstrap)?;
    let Loaded { log, machine, applied, image, snapshot } = load::load::<M>(&layout, config)?;
    let parts = Parts {
        id: config.id,
        federation: config.federation,
        version: config.version,
        tick: config.tick,
        node: config.node,
        log,
        machine,
        applied,
        image: Box::new(image),
        snapshot,
        snapshots: Arc::new(Files::new(&layout.snapshots())),
        dir: layout.snapshots(),
        seed: rand::random(),
        fault: None,
        lock: Some(lock),
        now: Instant::now(),
    };
    let (driver, replica) = parts.assemble(connect)?;
    let thread = std::thread::Builder::new().name(format!("raft-{}", config.id));
    thread.spawn(move || driver.run()).map_err(io_error("start the thread of", &config.dir))?;
    Ok(replica)
}
