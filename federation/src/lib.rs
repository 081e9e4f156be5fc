//! The federation server: a raft-replicated store of catalogs, and the streams that serve it.

pub mod consensus;
pub mod store;
