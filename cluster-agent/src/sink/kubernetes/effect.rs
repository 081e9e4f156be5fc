//! The steps that the sink takes.

use super::seen::{Digest, Kind, ObjectKey, Part};
use serde_json::Value;
use std::collections::BTreeSet;

/// One part of an object.
pub type Target = (ObjectKey, Part);

/// One step.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Make an object, or one part of it, what it should be.
    Apply(Apply),
    /// Remove an object, if it is still this one.
    Delete {
        /// Which.
        key: ObjectKey,
        /// Its UID.
        uid: String,
        /// The version that is not wanted: who took over meanwhile may have made it another one.
        version: String,
        /// What it holds is wanted still, in slices that come before this step: where one of them could not be written
        /// this stays.
        moves: bool,
    },
    /// Tell people, by an Event.
    Tell(Note),
}

/// A server-side apply.
#[derive(Debug, Clone, PartialEq)]
pub struct Apply {
    /// Which object.
    pub key: ObjectKey,
    /// Which part of it.
    pub part: Part,
    /// All that we want to own of that part.
    pub body: Value,
    /// The digest of the body.
    pub digest: Digest,
    /// The digest of what it is to say, without what follows from others' changes of this very object: since when a
    /// condition is so, and of which generation of an import.
    pub content: Digest,
    /// The version that is changed, else a conflict; `None` makes the object, which must not be there.
    pub over: Option<String>,
}

impl Effect {
    /// What the step writes; nothing for an Event.
    #[must_use]
    pub fn target(&self) -> Option<Target> {
        match self {
            Effect::Apply(apply) => Some((apply.key.clone(), apply.part)),
            Effect::Delete { key, .. } => Some((key.clone(), Part::Main)),
            Effect::Tell(_) => None,
        }
    }

    /// What the step writes there, without what does not count; nothing where it removes an object.
    #[must_use]
    pub fn content(&self) -> Option<Digest> {
        match self {
            Effect::Apply(apply) => Some(apply.content),
            Effect::Delete { .. } | Effect::Tell(_) => None,
        }
    }

    /// Whether the step makes no sense where these parts could not be written: an Event that says what the status of
    /// its object does, and the removal of a slice whose endpoints move to others.
    #[must_use]
    pub fn waits_for(&self, unwritten: &BTreeSet<Target>) -> bool {
        match self {
            Effect::Apply(_) => false,
            Effect::Delete { moves, .. } => {
                *moves && unwritten.iter().any(|(key, _)| key.kind == Kind::Slice)
            }
            Effect::Tell(note) => unwritten.contains(&(note.about.clone(), Part::Status)),
        }
    }
}

impl Apply {
    /// Whether to take fields from other managers: only in objects that we made.
    #[must_use]
    pub fn force(&self) -> bool {
        self.over.is_some() && self.key.kind != Kind::Export
    }
}

/// What an Event says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The object that it is about.
    pub about: ObjectKey,
    /// Its UID.
    pub uid: String,
    /// Whether somebody should look after it.
    pub warning: bool,
    /// The reason, in one word.
    pub reason: String,
    /// For people.
    pub message: String,
}
