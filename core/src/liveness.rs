//! The verdict on a cluster: a pure function over evidence that arrived in commands.

use crate::compute::imports_from;
use crate::identity::ClusterId;
use crate::name::ClusterName;
use crate::state::{Cluster, LaneVerdict, Lease, State};
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

/// The verdict on a cluster, with the evidence.
///
/// Its witnesses are the clusters other than itself that import from it, hold a live lease and have reported on it
/// in this session. It is withdrawn when its lease lapsed AND at least one witness says down AND more say down than
/// up. A tie or no witness withdraws nothing. A stranger never held a lease.
#[must_use]
pub fn verdict(state: &State, cluster: ClusterId) -> Liveness {
    let lease = state.clusters.get(&cluster).map_or(Lease::Never, |cluster| cluster.lease);
    let importers = state.clusters.values().filter(|other| imports_from(state, other, cluster));
    let witnesses: Vec<Witness> = importers.map(|other| hear(other, cluster)).collect();
    let says =
        |verdict| witnesses.iter().filter(|w| matches!(w.says, Ok((said, _)) if said == verdict)).count();
    let (up, down) = (count(says(LaneVerdict::Up)), count(says(LaneVerdict::Down)));
    Liveness { standing: judge(lease, up, down), lease, witnesses, up, down }
}

/// The verdict alone; the witnesses are heard only where they matter.
pub(crate) fn standing(state: &State, cluster: ClusterId) -> Standing {
    match state.clusters.get(&cluster).map(|cluster| cluster.lease) {
        Some(Lease::Live { .. }) => Standing::Live,
        Some(Lease::Lapsed { .. }) => verdict(state, cluster).standing,
        Some(Lease::Never) | None => Standing::Suspect,
    }
}

fn judge(lease: Lease, up: u32, down: u32) -> Standing {
    match lease {
        Lease::Live { .. } => Standing::Live,
        Lease::Lapsed { .. } if down > 0 && down > up => Standing::Withdrawn,
        // Who never opened a session never exported anything that could be withdrawn.
        Lease::Lapsed { .. } | Lease::Never => Standing::Suspect,
    }
}

fn hear(witness: &Cluster, on: ClusterId) -> Witness {
    let says = match (witness.lease, witness.lanes.get(&on)) {
        (Lease::Live { .. }, Some(lane)) => Ok((lane.verdict, lane.since)),
        (Lease::Live { .. }, None) => Err(NoWitness::NoReport),
        (Lease::Lapsed { .. } | Lease::Never, _) => Err(NoWitness::NoLease),
    };
    Witness { cluster: witness.name.clone(), says }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
