//! Where the agent learns what is in its cluster.
//!
//! A source sends [`SourceEvent`]s into a bounded channel; what they mean does not depend on the kind of source.

pub mod kubernetes;
pub mod manifests;

use crate::index::Change;
use serde::Serialize;
use std::collections::BTreeMap;

/// What a source says.
#[derive(Debug, Clone, PartialEq)]
pub enum SourceEvent {
    /// These objects changed, in this order.
    Changed(Vec<Change>),
    /// Everything that existed at the start was sent: the cluster is known as a whole from here on.
    Ready,
    /// What is wrong with the source's objects now, all of it; empty when nothing is.
    Problems(Vec<Problem>),
    /// These kinds of objects can not be read now, by why; all can when it is empty. What was sent before stands.
    Unavailable(Failures),
}

/// Kinds of objects that can not be read, by why.
pub type Failures = BTreeMap<&'static str, String>;

/// An object that was refused, and why.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// The file, relative to the manifest directory; of an API server, the resource.
    pub file: String,
    /// The document's place in the file, from 1; 0 for the file as a whole, and for an object of an API server.
    pub document: usize,
    /// The object, as far as it is known.
    pub object: Option<String>,
    /// The field, as a path from the object's root; empty for the document as a whole.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
}

/// How many events may wait for the agent: a source that is ahead by more waits.
pub const EVENTS: usize = 64;
