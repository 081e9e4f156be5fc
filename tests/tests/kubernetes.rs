//! The tests against real Kubernetes: API servers on loopback, or whole clusters.
#![allow(clippy::unwrap_used)] // tests

#[path = "kubernetes/control_plane.rs"]
mod control_plane;
