//! A server: a disk that stays, and a process that comes and goes.

use super::client::Said;
use super::disk::{Disk, Job, SimImage, SimLog, SimSnapshots};
use super::genesis;
use super::machine::{self, Journal, Observed};
use super::network::Outbox;
use super::profile::Profile;
use super::random::Random;
use raft::eraftpb::SnapshotMetadata;
use sealane_core::identity::ServerId;
use sealane_federation::consensus::machine::{Fatal, StateMachine};
use sealane_federation::consensus::replica::ProposeError;
use sealane_federation::consensus::sim::{
    Asked, Fault, Fit, Position, Proposed, RaftLog, Setup, StateStore, Station, fit,
};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot::error::TryRecvError;

/// Whom an answer is for: a client, the number of its matter, and what was known to be acknowledged when it asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket {
    pub(super) client: usize,
    pub(super) number: u64,
    pub(super) floor: u64,
}

/// How a round ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ended {
    Well,
    /// Where its fuse said.
    Crashed,
    /// By itself, which no correct replica does here.
    Stopped(String),
}

/// A server.
pub(super) struct Server {
    pub(super) id: u64,
    /// Counts its processes.
    pub(super) run: u64,
    pub(super) disk: Disk,
    pub(super) station: Option<Station<Observed, SimLog>>,
    pub(super) outbox: Outbox,
    pub(super) journal: Journal,
    pub(super) paused_until: u64,
    pub(super) busy_until: u64,
    /// Microseconds that a sync takes.
    pub(super) sync_takes: u64,
    pub(super) wake_at: Option<u64>,
    /// What it was last seen as: role, term, leader.
    pub(super) seen: (bool, u64, Option<u64>),
    waiting: Vec<(Ticket, Proposed<sealane_core::command::Reply>)>,
    reading: Vec<(Ticket, Asked)>,
    tick: Duration,
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
        .unwrap_or_else(|| "a panic".to_owned())
}

impl Server {
    pub(super) fn new(id: u64, disk: Disk, random: &mut Random) -> Self {
        Server {
            id,
            run: 0,
            disk,
            station: None,
            outbox: Outbox::default(),
            journal: Journal::default(),
            paused_until: 0,
            busy_until: 0,
            sync_takes: 100,
            wake_at: None,
            seen: (false, 0, None),
            waiting: Vec::new(),
            reading: Vec::new(),
            // Clocks drift.
            tick: Duration::from_micros(random.between(24_000, 26_000)),
        }
    }

    /// Starts a process on what the disk holds, as `open` does. Gives the index of its state.
    pub(super) fn start(
        &mut self,
        now: Instant,
        seed: u64,
        profile: &Profile,
        fault: Option<Fault>,
    ) -> Result<u64, String> {
        machine::enter(&self.journal);
        let begun = catch_unwind(AssertUnwindSafe(|| self.load(now, seed, profile, fault)));
        let (station, index) = match begun {
            Ok(loaded) => loaded?,
            Err(panic) => return Err(panicked(panic.as_ref())),
        };
        self.run += 1;
        self.station = Some(station);
        self.seen = (false, 0, None);
        Ok(index)
    }

    fn load(
        &self,
        now: Instant,
        seed: u64,
        profile: &Profile,
        fault: Option<Fault>,
    ) -> Result<(Station<Observed, SimLog>, u64), String> {
        let log = SimLog(self.disk.clone());
        let snapshot = self.disk.latest_usable(&log);
        let mut image = SimImage(self.disk.clone());
        let (machine, applied) = match self.read_image(&image, &log)? {
            Some(found) => found,
            None => {
                let first = log.truncated().index + 1;
                let snapshot =
                    snapshot.as_ref().ok_or_else(|| format!("no snapshot reaches entry {first}"))?;
                let machine = Observed::restore(snapshot.records.iter().cloned().map(Ok)).map_err(text)?;
                let applied = snapshot.header.metadata.clone();
                let needs = machine.min_version();
                image.replace(&mut machine.records(), &applied, needs).map_err(|e| e.to_string())?;
                (machine, applied)
            }
        };
        let index = applied.index;
        let setup = Setup {
            id: ServerId(self.id),
            federation: genesis::FEDERATION,
            tick: self.tick,
            node: profile.node,
            log,
            machine,
            applied,
            image: Box::new(image),
            snapshot: snapshot.map(|s| s.header.metadata),
            snapshots: Arc::new(SimSnapshots::new(self.disk.clone(), self.outbox.clone())),
            seed,
            fault,
            now,
        };
        let outbox = self.outbox.clone();
        Station::new(setup, |_| Arc::new(outbox)).map(|station| (station, index)).map_err(text)
    }

    fn read_image(
        &self,
        image: &SimImage,
        log: &SimLog,
    ) -> Result<Option<(Observed, SnapshotMetadata)>, String> {
        let Some((applied, records)) =
            image.load(sealane_core::command::VERSION).map_err(|e| e.to_string())?
        else {
            return Ok(None);
        };
        match fit(Position { index: applied.index, term: applied.term }, log) {
            Fit::Good => {
                Observed::restore(records.into_iter().map(Ok)).map(|m| Some((m, applied))).map_err(text)
            }
            Fit::Older => Ok(None),
            Fit::Replaced => Err(format!(
                "its image has applied entry {} of term {}, and its log holds another entry there: acknowledged \
                 entries are lost",
                applied.index, applied.term
            )),
            Fit::Beyond => Err(format!(
                "its image has applied entry {}, and its log ends at {}: acknowledged entries are lost",
                applied.index,
                log.last().index
            )),
        }
    }

    /// One round.
    pub(super) fn step(&mut self, now: Instant) -> Ended {
        let Some(station) = &mut self.station else { return Ended::Well };
        machine::enter(&self.journal);
        let disk = self.disk.clone();
        let mut before = |_| disk.burn().map_err(|_| Fatal::new("the process crashed"));
        let ended = catch_unwind(AssertUnwindSafe(|| station.step(now, &mut before)));
        match ended {
            _ if self.disk.is_dead() => Ended::Crashed,
            Ok(Ok(())) => Ended::Well,
            Ok(Err(fatal)) => Ended::Stopped(fatal.to_string()),
            Err(panic) => Ended::Stopped(panicked(panic.as_ref())),
        }
    }

    /// Does a job beside the loop.
    pub(super) fn work(&mut self, job: Job) {
        machine::enter(&self.journal);
        (job.0)();
    }

    /// The process ends without notice, and the disk forgets what it may.
    pub(super) fn crash(&mut self, random: &mut Random) {
        self.station = None;
        self.waiting.clear();
        self.reading.clear();
        self.disk.crash(random);
        (self.wake_at, self.paused_until, self.busy_until) = (None, 0, 0);
    }

    /// Takes a command of a client; an answer if there is one at once.
    pub(super) fn propose(&mut self, ticket: Ticket, command: Vec<u8>) -> Option<Said> {
        match self.station.as_ref()?.propose(command.into()) {
            Ok(answer) => {
                self.waiting.push((ticket, answer));
                None
            }
            Err(_) => Some(Said::Unknown),
        }
    }

    /// Takes a read of a client.
    pub(super) fn read(&mut self, ticket: Ticket) {
        if let Some(Ok(answer)) = self.station.as_ref().map(Station::read) {
            self.reading.push((ticket, answer));
        }
    }

    /// What was answered in this round. A read is answered with the state as it is now.
    pub(super) fn answers(&mut self) -> Vec<(Ticket, Said)> {
        let mut said = Vec::new();
        self.waiting.retain_mut(|(ticket, answer)| {
            said.push((
                *ticket,
                match answer.try_recv() {
                    Err(TryRecvError::Empty) => return true,
                    Ok(Ok((index, reply))) => Said::Applied(index, reply),
                    Ok(Err(ProposeError::NotLeader { leader })) => Said::NotLeader(leader.map(|l| l.0)),
                    Ok(Err(_)) | Err(TryRecvError::Closed) => Said::Unknown,
                },
            ));
            false
        });
        let state = self.station.as_ref().map_or(0, |station| station.state().0);
        self.reading.retain_mut(|(ticket, answer)| {
            said.push((
                *ticket,
                match answer.try_recv() {
                    Err(TryRecvError::Empty) => return true,
                    Ok(Ok(_)) => Said::Read(state),
                    Ok(Err(_)) | Err(TryRecvError::Closed) => Said::Unknown,
                },
            ));
            false
        });
        said
    }
}

fn text(fatal: Fatal) -> String {
    fatal.to_string()
}
