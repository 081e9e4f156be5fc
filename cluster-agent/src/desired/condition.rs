//! Conditions, and the memory that keeps `lastTransitionTime` where it was.

use crate::status::rfc3339;
use sealane_core::time::Millis;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) kind: &'static str,
    pub(super) status: &'static str,
    pub(super) reason: String,
    pub(super) message: String,
}

#[derive(Deserialize)]
struct Written {
    #[serde(default)]
    status: Option<WrittenStatus>,
}

#[derive(Deserialize)]
struct WrittenStatus {
    #[serde(default)]
    conditions: Vec<Condition>,
}

/// Since when each written condition is what it is, by file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Transitions(BTreeMap<String, Vec<Condition>>);

impl Transitions {
    /// Takes in what a file says. A file that can not be understood has no history.
    pub fn learn(&mut self, path: &str, text: &str) {
        let written: Option<Written> = serde_saphyr::from_str(text).ok();
        let conditions = written.and_then(|w| w.status).map(|s| s.conditions).unwrap_or_default();
        if conditions.is_empty() {
            self.0.remove(path);
        } else {
            self.0.insert(path.to_owned(), conditions);
        }
    }

    /// A file is gone.
    pub fn forget(&mut self, path: &str) {
        self.0.remove(path);
    }

    pub(super) fn stamp(
        &self,
        path: &str,
        draft: Draft,
        observed_generation: Option<i64>,
        now: Millis,
    ) -> Condition {
        let before = self.0.get(path).and_then(|c| c.iter().find(|c| c.kind == draft.kind));
        let since = before.filter(|b| b.status == draft.status).map(|b| b.last_transition_time.clone());
        Condition {
            kind: draft.kind.to_owned(),
            status: draft.status.to_owned(),
            observed_generation,
            last_transition_time: since.unwrap_or_else(|| rfc3339(Millis(now.0 / 1000 * 1000))),
            reason: draft.reason,
            message: draft.message,
        }
    }
}
