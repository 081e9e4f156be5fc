//! The verdict on a cluster: a pure function over evidence that arrived in commands.

use crate::name::ClusterName;
use crate::state::{LaneVerdict, Lease};
use crate::time::Millis;
use crate::view::Standing;

/// The verdict on one cluster, with all the evidence it rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Liveness {
    /// The verdict.
    pub standing: Standing,
    /// The lease.
    pub lease: Lease,
    /// Everyone who could bear witness, and whether they count.
    pub witnesses: Vec<Witness>,
    /// Witnesses that say up.
    pub up: u32,
    /// Witnesses that say down.
    pub down: u32,
}

/// One cluster's evidence on another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witness {
    /// Who says it.
    pub cluster: ClusterName,
    /// What it says, and since when; else why it does not count.
    pub says: Result<(LaneVerdict, Millis), NoWitness>,
}

/// Why a cluster's evidence does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoWitness {
    /// Its own lease is not live.
    NoLease,
    /// It has not reported on the cluster in this session.
    NoReport,
}
