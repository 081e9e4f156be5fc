//! A deterministic simulation: three real replicas on simulated disks, clocks and network, in one thread.
//!
//! Real are the driver's rounds, the step machine over raft, the domain's state, the wire's conversions, and the
//! clients' rules of retrying. Simulated are time (it jumps to the next event), disks (a crash loses what was not
//! synced), the network (it drops, delays, reorders, duplicates and partitions) and the processes (they crash between
//! any two effects, pause, and stand behind slow disks).
//!
//! Law: one seed, one history. Nothing here asks a clock, a hasher or a thread for anything that a history could show.
//!
//! What is claimed of every history is in [`check`], one property a file. After the faults the network heals, and the
//! federation must converge.

pub mod check;
mod client;
mod disk;
mod genesis;
mod machine;
mod nemesis;
mod network;
mod profile;
mod random;
mod server;
mod sweep;
mod trace;
mod world;

pub use check::Violation;
pub use sealane_federation::consensus::sim::Fault;
pub use sweep::sweep;

use std::fmt;

/// What came of one seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// The hash of everything that happened.
    pub hash: u64,
    /// What was counted.
    pub counts: Counts,
    /// What did not hold.
    pub violation: Option<Violation>,
    /// The last things that happened.
    pub tail: Vec<String>,
}

/// What a history was made of; a simulation without faults and writes would prove nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Simulated milliseconds.
    pub simulated_ms: u64,
    /// Commands acknowledged to clients.
    pub acknowledged: u64,
    /// Attempts beyond the first.
    pub retries: u64,
    /// Reads answered.
    pub reads: u64,
    /// Crashes, those of a whole site counted for each server.
    pub crashes: u64,
    /// Changes of leader.
    pub leaders: u64,
    /// Snapshots installed from a peer.
    pub installs: u64,
    /// Messages between servers.
    pub messages: u64,
}

impl Counts {
    /// The counts of two histories together.
    #[must_use]
    pub fn and(self, other: Counts) -> Counts {
        Counts {
            simulated_ms: self.simulated_ms + other.simulated_ms,
            acknowledged: self.acknowledged + other.acknowledged,
            retries: self.retries + other.retries,
            reads: self.reads + other.reads,
            crashes: self.crashes + other.crashes,
            leaders: self.leaders + other.leaders,
            installs: self.installs + other.installs,
            messages: self.messages + other.messages,
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { acknowledged, retries, reads, crashes, leaders, installs, messages, .. } = self;
        write!(
            f,
            "{acknowledged} acknowledged commands, {retries} retries, {reads} reads, {crashes} crashes, {leaders} \
             changes of leader, {installs} installed snapshots, {messages} messages"
        )
    }
}

impl Outcome {
    /// What a reader needs where a property did not hold: the last that happened, the sentence, the way to see it
    /// again.
    #[must_use]
    pub fn complaint(&self, broken: Option<&str>) -> Option<String> {
        let violation = self.violation.as_ref()?;
        let (tail, seed) = (self.tail.join("\n"), self.seed);
        let again = command(seed, broken);
        Some(format!("{tail}\n\nseed {seed} does not hold {violation}\nagain: {again}"))
    }
}

/// The defect of a name, as the command line gives it.
#[must_use]
pub fn fault(name: &str) -> Option<Fault> {
    Fault::ALL.iter().find(|(known, ..)| *known == name).map(|(_, fault, _)| *fault)
}

/// Runs the history of a seed.
#[must_use]
pub fn run(seed: u64, fault: Option<Fault>) -> Outcome {
    world::World::new(seed, fault).run()
}

/// The command that replays a seed.
#[must_use]
pub fn command(seed: u64, broken: Option<&str>) -> String {
    let broken = broken.map(|name| format!(" --broken {name}")).unwrap_or_default();
    format!("cargo run --release -p sealane-tests --bin sim -- --seed {seed}{broken}")
}

#[cfg(test)]
mod tests;
