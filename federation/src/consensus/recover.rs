//! Making a federation from one surviving disk.
//!
//! The last resort, when a majority is lost for good or what is left refuses to start. What can be read is kept: the
//! restart image or the newest whole snapshot, whichever is further, and every entry after it, known to be committed
//! or not, because any of them may have been acknowledged. Entries after damage in the log are lost, and the report
//! says so. The old files stay beside the new ones, in `before-recovery-<n>`.
//!
//! Law: everything new is complete and synced in `recovered` before anything old is moved, so a crash in the middle is
//! finished by running it again.

use crate::consensus::driver::{Files, restore};
use crate::consensus::machine::{Record, StateMachine};
use crate::consensus::open::{Config, Layout, OpenError, Seed, io_error, lay_out};
use crate::store::durable;
use crate::store::log::wal::{Salvage, Wal};
use crate::store::log::{Batch, LogError, RaftLog};
use crate::store::marker::Marker;
use crate::store::snapshot::{self, Header};
use crate::store::state::{Image, StateError, StateStore};
use raft::eraftpb::{Entry, EntryType, HardState, SnapshotMetadata};
use std::fs;
use std::path::{Path, PathBuf};

const NEW: &str = "recovered";
const PARTS: [&str; 4] = ["marker", "log", "snapshots", "state"];

/// What a recovery kept and what it had to give up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// The index of the state that it starts from.
    pub base: u64,
    /// The last entry kept.
    pub last: u64,
    /// What was damaged and passed over.
    pub damage: Vec<String>,
    /// Where the old files are.
    pub kept_in: PathBuf,
}

/// Makes `config.id` the only voter of the federation, with everything that can be read in `config.dir`.
///
/// The marker need not be readable; the ids are those of `config`. An id that no server had is safest: servers of the
/// old federation that still run then do not take this one for the one they knew.
pub fn force_new_cluster<M: StateMachine>(config: &Config) -> Result<Recovered, OpenError> {
    let layout = Layout { dir: config.dir.clone() };
    let _lock = layout.lock()?;
    let new = Layout { dir: config.dir.join(NEW) };
    let mut report = Recovered { base: 0, last: 0, damage: Vec::new(), kept_in: PathBuf::new() };
    // The marker is written last, and the number only after it: where one of them is, everything is.
    let complete = Marker::load(&new.dir).ok().flatten().is_some() || new.dir.join("number").exists();
    if !complete {
        if new.dir.exists() {
            fs::remove_dir_all(&new.dir).map_err(io_error("remove", &new.dir))?;
        }
        rebuild::<M>(&layout, &new, config, &mut report)?;
    }
    report.kept_in = swap(&layout, &new)?;
    Ok(report)
}

fn rebuild<M: StateMachine>(
    old: &Layout,
    new: &Layout,
    config: &Config,
    report: &mut Recovered,
) -> Result<(), OpenError> {
    let salvage = read_log(old, report)?;
    let (records, metadata) = base::<M>(old, config, report)?;
    let entries = kept(salvage.entries, &metadata);
    report.base = metadata.index;
    report.last = entries.last().map_or(metadata.index, |e| e.index);
    if report.base == 0 {
        return Err(OpenError::NoState { first: salvage.truncated.index + 1 });
    }
    let mut alone = SnapshotMetadata::default();
    (alone.index, alone.term) = (metadata.index, metadata.term);
    alone.mut_conf_state().set_voters(vec![config.id.0]);
    let machine = M::restore(records.into_iter().map(Ok))?;
    let header =
        Header { metadata: alone, min_version: machine.min_version(), federation: config.federation };
    let newest = entries.last().map_or(metadata.term, |e| e.term).max(salvage.hard_state.term);
    let mut hard_state = HardState::default();
    (hard_state.term, hard_state.commit) = (newest, metadata.index);
    let seed = Seed { header: &header, hard_state: &hard_state, records: machine.records() };
    let mut log = lay_out(new, config.wal, seed)?;
    log.write(&Batch { entries, ..Batch::default() })?;
    log.sync()?;
    drop(log);
    Ok(Marker { federation: config.federation, server: config.id, storage: rand::random() }
        .store(&new.dir)?)
}

fn read_log(old: &Layout, report: &mut Recovered) -> Result<Salvage, OpenError> {
    if !old.log().exists() {
        report.damage.push("there is no log".to_owned());
        let (hard_state, truncated) = (HardState::default(), crate::store::log::Position::default());
        return Ok(Salvage { hard_state, truncated, entries: Vec::new(), damage: None });
    }
    let salvage = match Wal::salvage(&old.log()) {
        Ok(salvage) => salvage,
        Err(error @ LogError::Io { .. }) => return Err(error.into()),
        Err(error) => Salvage {
            hard_state: HardState::default(),
            truncated: crate::store::log::Position::default(),
            entries: Vec::new(),
            damage: Some(error),
        },
    };
    report.damage.extend(salvage.damage.as_ref().map(ToString::to_string));
    Ok(salvage)
}

/// The furthest state that is whole.
fn base<M: StateMachine>(
    old: &Layout,
    config: &Config,
    report: &mut Recovered,
) -> Result<(Vec<Record>, SnapshotMetadata), OpenError> {
    let mut best = (Vec::new(), SnapshotMetadata::default());
    if old.state().exists() {
        match Image::open(&old.state()).and_then(|image| image.load(config.version)) {
            Ok(Some((metadata, records))) => best = (records, metadata),
            Ok(None) => {}
            Err(error @ StateError::TooNew { .. }) => return Err(error.into()),
            Err(error) => report.damage.push(error.to_string()),
        }
    }
    let files = if old.snapshots().exists() { snapshot::list(&old.snapshots())? } else { Vec::new() };
    for file in files.iter().rev().take_while(|f| f.position.index > best.1.index) {
        match snapshot::verify(&file.path) {
            Ok(header) => {
                let files = Files::new(&old.snapshots());
                let machine: M = restore(&files, header.position(), config.version)?;
                return Ok((machine.records().collect(), header.metadata));
            }
            Err(error) => report.damage.push(error.to_string()),
        }
    }
    Ok(best)
}

/// The entries that go on from the base. Changes of membership become empty: the new federation is this server alone.
fn kept(entries: Vec<Entry>, base: &SnapshotMetadata) -> Vec<Entry> {
    let mut kept: Vec<Entry> = Vec::new();
    let later = entries.into_iter().skip_while(|e| e.index <= base.index);
    for (next, mut entry) in (base.index + 1..).zip(later) {
        if entry.index != next || entry.term < base.term {
            break;
        }
        if entry.get_entry_type() != EntryType::EntryNormal {
            entry.set_entry_type(EntryType::EntryNormal);
            entry.data = bytes::Bytes::new();
        }
        kept.push(entry);
    }
    kept
}

/// Moves the old parts aside and the new ones in; the marker leaves first and comes last.
fn swap(layout: &Layout, new: &Layout) -> Result<PathBuf, OpenError> {
    let kept_in = aside(layout, swap_number(layout, new)?);
    durable::create_dir(&kept_in).map_err(io_error("create", &kept_in))?;
    for part in PARTS {
        let (from, to) = (layout.dir.join(part), kept_in.join(part));
        // Where the new part is no longer waiting, what stands in the old place is the new part.
        let is_old = part == "state" || new.dir.join(part).exists();
        if is_old && from.exists() && !to.exists() {
            move_durably(&from, &to)?;
        }
    }
    for part in PARTS.into_iter().rev() {
        let from = new.dir.join(part);
        if from.exists() {
            move_durably(&from, &layout.dir.join(part))?;
        }
    }
    fs::remove_dir_all(&new.dir).map_err(io_error("remove", &new.dir))?;
    Ok(kept_in)
}

/// Which `before-recovery-<n>` this recovery uses; noted before anything moves, so that a second run uses the same.
fn swap_number(layout: &Layout, new: &Layout) -> Result<u32, OpenError> {
    let note = new.dir.join("number");
    if note.exists() {
        let text = fs::read_to_string(&note).map_err(io_error("read", &note))?;
        if let Ok(number) = text.trim().parse() {
            return Ok(number);
        }
    }
    let number = (1..).find(|n| !aside(layout, *n).exists()).unwrap_or(u32::MAX);
    durable::write_file(&note, number.to_string().as_bytes()).map_err(io_error("write", &note))?;
    Ok(number)
}

fn aside(layout: &Layout, number: u32) -> PathBuf {
    layout.dir.join(format!("before-recovery-{number}"))
}

fn move_durably(from: &Path, to: &Path) -> Result<(), OpenError> {
    durable::rename(from, to).map_err(io_error("move", from))?;
    durable::sync_dir(durable::parent(from)).map_err(io_error("sync", from))
}
