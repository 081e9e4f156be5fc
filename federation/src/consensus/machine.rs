//! The seam between consensus and the domain: what a replicated state machine must offer, and nothing about how.

use std::fmt;

/// A key and its value as they rest in the restart image and in snapshots.
pub type Record = (Vec<u8>, Vec<u8>);

/// A deterministic machine that committed commands drive.
///
/// Law: `apply` depends on the machine and its arguments alone; two replicas that applied the same log are equal, and
/// `restore(records())` gives the same machine again. `Clone` shares structure and is cheap: readers and snapshots
/// take one after every round.
pub trait StateMachine: Clone + Send + Sync + 'static {
    /// What a command is answered once it is applied.
    type Reply: Clone + Send + Sync + 'static;

    /// Applies the command committed at `index`. A refusal of the command is a `Reply`; [`Fatal`] stops the replica.
    fn apply(&mut self, index: u64, term: u64, command: &[u8]) -> Result<Applied<Self::Reply>, Fatal>;

    /// The whole content.
    fn records(&self) -> Box<dyn Iterator<Item = Record> + Send + '_>;

    /// The machine that has exactly these records; with none, the initial one.
    fn restore<I>(records: I) -> Result<Self, Fatal>
    where
        I: Iterator<Item = Result<Record, Fatal>>;

    /// The lowest version of the command set that can read this content.
    fn min_version(&self) -> u32;
}

/// What one command did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied<R> {
    /// The answer for the proposer.
    pub reply: R,
    /// The records that changed; `None` deletes.
    pub dirty: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

/// Why a replica can not go on: a sentence that names what was met and the way out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Fatal(String);

impl Fatal {
    /// A reason to stop.
    pub fn new(reason: impl fmt::Display) -> Self {
        Fatal(reason.to_string())
    }
}
