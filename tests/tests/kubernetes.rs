//! The tests against real Kubernetes: API servers on loopback, or whole clusters.
#![allow(clippy::unwrap_used)] // tests

#[path = "kubernetes/charts.rs"]
mod charts;
#[path = "kubernetes/clusters.rs"]
mod clusters;
#[path = "kubernetes/control_plane.rs"]
mod control_plane;
#[path = "kubernetes/east.rs"]
mod east;
#[path = "kubernetes/enter.rs"]
mod enter;
#[path = "kubernetes/federated.rs"]
mod federated;
#[path = "kubernetes/history.rs"]
mod history;
#[path = "kubernetes/installed.rs"]
mod installed;
#[path = "kubernetes/joining.rs"]
mod joining;
#[path = "kubernetes/lost_volume.rs"]
mod lost_volume;
#[path = "kubernetes/member.rs"]
mod member;
#[path = "kubernetes/outage.rs"]
mod outage;
#[path = "kubernetes/power.rs"]
mod power;
#[path = "kubernetes/pressure.rs"]
mod pressure;
#[path = "kubernetes/raised.rs"]
mod raised;
#[path = "kubernetes/recording.rs"]
mod recording;
#[path = "kubernetes/rights.rs"]
mod rights;
#[path = "kubernetes/sink.rs"]
mod sink;
#[path = "kubernetes/snapshot.rs"]
mod snapshot;
#[path = "kubernetes/source.rs"]
mod source;
#[path = "kubernetes/tokens.rs"]
mod tokens;
#[path = "kubernetes/uninstall.rs"]
mod uninstall;
#[path = "kubernetes/upgrade.rs"]
mod upgrade;
#[path = "kubernetes/values.rs"]
mod values;
