//! The network: it may lose, delay, reorder and repeat, and it can be cut in either direction.

use super::disk::Snapshot;
use super::profile::Weather;
use super::random::Random;
use sealane_core::identity::ServerId;
use sealane_federation::consensus::transport::Transport;
use sealane_proto::peer::v1::RaftMessage;
use std::collections::BTreeSet;
use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};

/// A message that left a server.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) to: u64,
    pub(super) message: RaftMessage,
    pub(super) snapshot: Option<Snapshot>,
}

/// What a server sent in this round.
#[derive(Debug, Clone, Default)]
pub(super) struct Outbox(Arc<Mutex<Vec<Outgoing>>>);

impl Outbox {
    pub(super) fn push(&self, to: ServerId, message: RaftMessage, snapshot: Option<Snapshot>) {
        let outgoing = Outgoing { to: to.0, message, snapshot };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(outgoing);
    }

    pub(super) fn take(&self) -> Vec<Outgoing> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Transport for Outbox {
    fn send(&self, to: ServerId, message: RaftMessage) {
        self.push(to, message, None);
    }

    /// Snapshots leave by their own seam, which knows what they hold.
    fn send_snapshot(&self, _: ServerId, _: RaftMessage, _: File) {}
}

/// What becomes of one message: the delays of its copies, in microseconds; none when it is lost.
pub(super) type Copies = Vec<u64>;

/// The links between servers.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) weather: Weather,
    cut: BTreeSet<(u64, u64)>,
}

impl Network {
    pub(super) fn new(weather: Weather) -> Self {
        Network { weather, cut: BTreeSet::new() }
    }

    /// Nothing passes from one to the other.
    pub(super) fn cut(&mut self, from: u64, to: u64) {
        self.cut.insert((from, to));
    }

    /// Everything passes again.
    pub(super) fn heal(&mut self) {
        self.cut.clear();
    }

    pub(super) fn is_cut(&self, from: u64, to: u64) -> bool {
        self.cut.contains(&(from, to))
    }

    fn delay(&self, random: &mut Random) -> u64 {
        if random.permille(self.weather.late) {
            random.between(20_000, 1_500_000)
        } else {
            random.around(self.weather.delay)
        }
    }

    /// What becomes of a message between servers.
    pub(super) fn carry(&self, from: u64, to: u64, random: &mut Random) -> Copies {
        if self.is_cut(from, to) { Vec::new() } else { self.carry_client(random) }
    }

    /// What becomes of a message between a client and a server.
    pub(super) fn carry_client(&self, random: &mut Random) -> Copies {
        if random.permille(self.weather.lose) {
            return Vec::new();
        }
        let copies = if random.permille(self.weather.repeat) { 2 } else { 1 };
        (0..copies).map(|_| self.delay(random)).collect()
    }
}
