//! Deliberate defects, one at a time, for the simulator to find: what it can not find, it does not test.
//!
//! No flag and no configuration of a server leads here; `open` always says `None`, and only `consensus::sim` can say
//! otherwise.

/// What is done wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// What is written to the log is not synced before it is promised.
    NoFsync,
    /// A vote, or a new term, is answered without being written.
    VoteNotPersisted,
    /// Votes and append answers are sent before what they promise is written.
    PromisedBeforePersisted,
    /// A command is answered by a machine that runs ahead of what is committed.
    AnsweredBeforeApplied,
    /// What raft has ready after a batch was persisted is dropped.
    LightReadyDropped,
    /// A read is answered without asking a quorum.
    ReadUnconfirmed,
    /// A snapshot does not say who the voters are.
    SnapshotWithoutConfState,
}

impl Fault {
    /// All of them, with the names by which they are asked for and what is said of them there.
    pub const ALL: [(&'static str, Fault, &'static str); 7] = [
        ("no-fsync", Fault::NoFsync, "The log is written and not synced"),
        (
            "vote-not-persisted",
            Fault::VoteNotPersisted,
            "A vote or a new term is answered without being written",
        ),
        (
            "promised-before-persisted",
            Fault::PromisedBeforePersisted,
            "Votes and append answers are sent before what they promise is written",
        ),
        (
            "answered-before-applied",
            Fault::AnsweredBeforeApplied,
            "A command is answered before it is committed and applied",
        ),
        (
            "light-ready-dropped",
            Fault::LightReadyDropped,
            "What raft has ready after a batch was written is dropped",
        ),
        ("read-unconfirmed", Fault::ReadUnconfirmed, "A read is answered without asking a quorum"),
        (
            "snapshot-without-confstate",
            Fault::SnapshotWithoutConfState,
            "A snapshot does not say who the voters are",
        ),
    ];
}
