//! Invariants of states and views, as a library: tests, the simulator, the admin pages and the CLI all ask it.
//!
//! A broken invariant is a note and never a panic: live data is looked at, not trusted.

mod state;
#[cfg(test)]
mod tests;
mod view;

use crate::identity::ClusterId;
use crate::report::Report;
use crate::state::State;
use crate::view::View;
use std::fmt;

/// One thing that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Note {
    /// How bad it is.
    pub severity: Severity,
    /// What it is about, such as `cluster west` or `shop/cart`.
    pub subject: String,
    /// What is wrong.
    pub sentence: String,
}

/// How bad a note is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Odd, and worth a look.
    Warning,
    /// An invariant is broken: a defect.
    Error,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.severity {
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        write!(f, "{word}: {}: {}", self.subject, self.sentence)
    }
}

/// What is wrong with a state; empty when nothing is.
#[must_use]
pub fn check(state: &State) -> Vec<Note> {
    state::PROPERTIES.iter().flat_map(|property| property(state)).collect()
}

/// What is wrong with the view of a cluster and its report, which were computed from this state.
#[must_use]
pub fn check_view(state: &State, cluster: ClusterId, view: &View, report: &Report) -> Vec<Note> {
    let Some(own) = state.clusters.get(&cluster) else {
        return if view.items.is_empty() {
            Vec::new()
        } else {
            vec![error(format!("cluster {cluster}"), "a stranger has a view")]
        };
    };
    let seen = view::Seen { state, own, view, report };
    view::PROPERTIES.iter().flat_map(|property| property(&seen)).collect()
}

fn error(subject: impl fmt::Display, sentence: impl Into<String>) -> Note {
    Note { severity: Severity::Error, subject: subject.to_string(), sentence: sentence.into() }
}
