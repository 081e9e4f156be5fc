//! DNS for `clusterset.local`, as the Multi-Cluster Services API specifies it (schema 1.0.0), by the agent itself.
//!
//! [`Zone`] is what the names answer: a pure value, made from what the agent knows and following its changes. Around
//! it, [`respond`] turns a packet into a packet, and [`serve`] moves packets.
//!
//! Law: a name that is not known to be absent is never said to be absent. Before a view is known the answer is
//! SERVFAIL, which resolvers take elsewhere and do not keep; what is not of this zone is REFUSED. Nothing that a
//! stranger sends makes the server hold more than the bounds in [`server`] say.

mod answer;
mod entry;
mod message;
mod metrics;
pub mod server;
mod zone;

pub use answer::Answer;
pub use entry::{Assigned, Entry, Instance, NamedPort, Places};
pub use message::{Reply, Transport, respond};
pub use metrics::DnsMetrics;
pub use server::{Server, Sockets, serve};
pub use zone::{Sources, Zone};

use crate::config::Common;
use crate::map::Shared;
use crate::status::Status;
use sealane_core::name::ServiceKey;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Addresses that something else than this agent's own range gave, by import.
pub type Assignments = Shared<ServiceKey, Assigned>;

/// What the zone is made of, as it changes.
#[derive(Debug)]
pub struct Inputs {
    /// What proxies run by; `None` until a view is known.
    pub common: watch::Receiver<Option<Arc<Common>>>,
    /// Where imports get their addresses elsewhere (the ServiceImports of a Kubernetes API), those: `None` in it until
    /// they were read whole. Absent where an import has its address from [`Common`].
    pub assigned: Option<watch::Receiver<Option<Assignments>>>,
    /// The addresses of the name servers themselves, as far as they are known.
    pub nameservers: Vec<IpAddr>,
}

/// Keeps the zone as its inputs are, until stopped.
pub async fn follow(
    mut inputs: Inputs,
    zone: watch::Sender<Option<Arc<Zone>>>,
    status: Arc<Status>,
    stop: CancellationToken,
) {
    loop {
        if let Some(sources) = inputs.sources() {
            let before = zone.borrow().clone();
            let next = match before {
                Some(before) => before.next(sources),
                None => Zone::new(sources, &inputs.nameservers),
            };
            status.zone(next.len());
            zone.send_replace(Some(Arc::new(next)));
        }
        let changed = tokio::select! {
            () = stop.cancelled() => return,
            changed = inputs.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

impl Inputs {
    /// `None` until all of them are known.
    fn sources(&mut self) -> Option<Sources> {
        let common = self.common.borrow_and_update().clone()?;
        let assigned = match &mut self.assigned {
            Some(assigned) => Some(assigned.borrow_and_update().clone()?),
            None => None,
        };
        Some(Sources { common, assigned })
    }

    async fn changed(&mut self) -> Result<(), watch::error::RecvError> {
        match &mut self.assigned {
            None => self.common.changed().await,
            Some(assigned) => tokio::select! {
                changed = self.common.changed() => changed,
                changed = assigned.changed() => changed,
            },
        }
    }
}

#[cfg(test)]
mod tests;
