//! The cluster agent: exports the catalog of its cluster, receives its view, serves its proxies.
//!
//! What decides is pure (`index`, `catalog`, `config`, `desired`, the diffs of `sink`, `lanes`, the state machines of
//! `uplink` and `view`); what acts is in loops around it, wired in `app`. The agent dials the store and never the other way round,
//! and with the store away it goes on from the last view, restarts included.

pub mod addresses;
pub mod admin;
mod app;
pub mod args;
pub mod backoff;
pub mod ca;
pub mod catalog;
pub mod config;
pub mod desired;
pub mod dns;
pub mod enroll;
pub mod identity;
pub mod index;
pub mod kubernetes;
pub mod lanes;
pub mod lease;
pub mod map;
pub mod metrics;
pub mod ours;
pub mod reach;
pub mod sink;
pub mod source;
pub mod state;
pub mod status;
pub mod store;
pub mod uplink;
pub mod vault;
pub mod view;

pub use app::run;
pub use args::Args;
