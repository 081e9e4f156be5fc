//! Time as the core sees it: a number that a command carries, never a clock.

use std::fmt;

/// Milliseconds since the Unix epoch, as proposed by the leader and made monotone by `apply`.
///
/// It serves expiry and display only; order comes from the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Millis(pub u64);

impl Millis {
    /// This instant plus a span in milliseconds, saturating.
    #[must_use]
    pub fn plus(self, ms: u64) -> Self {
        Millis(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this instant; 0 when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Millis) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// The version of every view: the raft index at which a change was committed, under the federation's generation.
///
/// A restore raises the generation, so revisions order as (generation, index).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Revision {
    /// Raised by every restore.
    pub generation: u64,
    /// The raft index.
    pub index: u64,
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.generation, self.index)
    }
}

impl std::str::FromStr for Revision {
    type Err = crate::name::NameError;
    /// Parses `generation.index`.
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let refusal = || crate::name::NameError::new("revision", s, "must be written GENERATION.INDEX");
        let (generation, index) = s.split_once('.').ok_or_else(refusal)?;
        Ok(Revision {
            generation: generation.parse().map_err(|_| refusal())?,
            index: index.parse().map_err(|_| refusal())?,
        })
    }
}
