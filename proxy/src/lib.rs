//! The proxy: one data plane in three roles, mTLS from end to end.
//!
//! Law: plain text never leaves the host; nothing is decided by what a peer claims, only by what its certificate
//! proves; the configuration in use changes at once and drops no connection (but those of a removed cluster). What
//! decides (`route`, `pick`, `authorize`) is pure; what acts is the life of a connection, written down in `role`.

mod admin;
mod app;
pub mod args;
mod authorize;
mod balance;
mod connections;
mod detect;
mod discover;
mod drain;
mod gate;
mod identity;
mod listen;
mod pick;
mod probe;
mod role;
mod route;
mod snapshot;
mod splice;
mod tcp;
mod telemetry;
mod tls;
mod wire;

pub use app::run;
pub use args::Args;
