//! The federation server: a raft-replicated store of catalogs, and the streams that serve it.
//!
//! - [`consensus`] replicates one state machine over several servers; [`store`] is what rests on the disk.
//! - [`machine`] is that state machine: the domain's `State`, as bytes.
//! - [`writer`] is the way of every write, [`publish`] the way of every view, [`lease`] the clusters' proof of life.
//! - [`rpc`] answers agents, administrators and other servers; [`rest`] answers people and their programs.
//! - [`app`] wires it all together, and is the only place that does.

mod forward;
mod issuers;

pub mod app;
pub mod args;
pub mod consensus;
pub mod lease;
pub mod machine;
pub mod metrics;
pub mod peers;
pub mod pki;
pub mod publish;
pub mod rest;
pub mod rpc;
pub mod store;
pub mod writer;

pub use app::run;
pub use args::Args;
