//! Since when each written condition is what it is, by file.

use crate::desired::Condition;
use serde::Deserialize;
use std::collections::BTreeMap;

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

/// The conditions of every file that has any.
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

    /// The conditions of a file.
    #[must_use]
    pub fn of(&self, path: &str) -> &[Condition] {
        self.0.get(path).map(Vec::as_slice).unwrap_or_default()
    }
}
