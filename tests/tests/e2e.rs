//! The end-to-end tests: real processes of the real binary, one topology at a time.
#![allow(clippy::unwrap_used)] // tests

#[path = "e2e/agent.rs"]
mod agent;
#[path = "e2e/capture.rs"]
mod capture;
#[path = "e2e/demo.rs"]
mod demo;
#[path = "e2e/dns.rs"]
mod dns;
#[path = "e2e/durability.rs"]
mod durability;
#[path = "e2e/explain.rs"]
mod explain;
#[path = "e2e/exports.rs"]
mod exports;
#[path = "e2e/hostile.rs"]
mod hostile;
#[path = "e2e/identity.rs"]
mod identity;
#[path = "e2e/liveness.rs"]
mod liveness;
#[path = "e2e/membership.rs"]
mod membership;
#[path = "e2e/slow.rs"]
mod slow;
#[path = "e2e/store.rs"]
mod store;
#[path = "e2e/traffic.rs"]
mod traffic;
