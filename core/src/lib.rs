//! The pure domain of Sealane: state, commands, views and every decision, without I/O.
//!
//! Law: no clock, no randomness, no async, no serialisation. Time, ids and evidence enter as fields of a
//! [`command::Command`]. Every replica therefore computes the same thing, and a test can replay any history.

pub mod apply;
pub mod check;
pub mod command;
pub mod compute;
pub mod endpoint;
pub mod events;
pub mod identity;
pub mod incremental;
pub mod liveness;
pub mod name;
pub mod reach;
pub mod report;
pub mod service;
pub mod sni;
pub mod state;
#[cfg(test)]
mod testing;
pub mod time;
pub mod trust;
pub mod view;
