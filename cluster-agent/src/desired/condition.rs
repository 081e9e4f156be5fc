//! Conditions, and how `lastTransitionTime` stays where it was.

use crate::status::rfc3339;
use sealane_core::time::Millis;
use serde::{Deserialize, Serialize};

/// A condition as Kubernetes writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What it is about.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// The generation of the object that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Since when the status is so.
    pub last_transition_time: String,
    /// The reason, in one word or several joined by commas.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// A condition before it is known since when it is so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// What it is about.
    pub kind: &'static str,
    /// `True`, `False` or `Unknown`.
    pub status: &'static str,
    /// The reason, in one word or several joined by commas.
    pub reason: String,
    /// For people.
    pub message: String,
}

impl Draft {
    /// A draft of these parts.
    #[must_use]
    pub fn new(kind: &'static str, status: &'static str, reason: &str, message: String) -> Self {
        Draft { kind, status, reason: reason.to_owned(), message }
    }

    /// The condition: the time of the one that was there before where the status is the same, else now.
    #[must_use]
    pub fn stamp(self, before: &[Condition], observed_generation: Option<i64>, now: Millis) -> Condition {
        let before = before.iter().find(|c| c.kind == self.kind && c.status == self.status);
        let since = before.map(|b| b.last_transition_time.clone());
        Condition {
            kind: self.kind.to_owned(),
            status: self.status.to_owned(),
            observed_generation,
            last_transition_time: since.unwrap_or_else(|| rfc3339(Millis(now.0 / 1000 * 1000))),
            reason: self.reason,
            message: self.message,
        }
    }
}

/// The API takes messages of up to 32768 bytes.
pub(crate) fn shorten(mut message: String) -> String {
    const MOST: usize = 4096;
    if message.len() > MOST {
        let end = (0..=MOST).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
        message.truncate(end);
        message.push('…');
    }
    message
}
