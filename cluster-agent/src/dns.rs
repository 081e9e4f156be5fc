//! DNS for `clusterset.local`, as the Multi-Cluster Services API specifies it (schema 1.0.0), by the agent itself.
//!
//! [`Zone`] is what the names answer: a pure value, made from what the agent knows and following its changes. Around
//! it, [`respond`] turns a packet into a packet, and [`serve`] moves packets.
//!
//! Law: what is not known to be absent is never said to be absent, and what is known to be absent is said to be. Before a
//! view is known, and for the address of an import that was given none yet, the answer is SERVFAIL, which resolvers take
//! elsewhere and do not keep; for a family that the import will never have an address of it is that there is none. What is
//! not of this zone is REFUSED. Nothing that a stranger sends makes the server hold more than the bounds in [`server`] say.

mod answer;
mod entry;
mod message;
mod metrics;
pub mod server;
mod zone;

pub use answer::Answer;
pub use entry::{Entry, Instance, NamedPort, Places};
pub use message::{Reply, Transport, respond};
pub use metrics::DnsMetrics;
pub use server::{Server, Sockets, serve};
pub use zone::Zone;

use crate::config::Common;
use crate::status::Status;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What the zone is made of, as it changes.
#[derive(Debug)]
pub struct Inputs {
    /// What proxies run by, with the addresses of imports, whoever gives them; `None` until a view is known.
    pub common: watch::Receiver<Option<Arc<Common>>>,
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
        let common = inputs.common.borrow_and_update().clone();
        if let Some(common) = common {
            let before = zone.borrow().clone();
            let next = match before {
                Some(before) => before.next(common),
                None => Zone::new(common, &inputs.nameservers),
            };
            status.zone(next.len());
            zone.send_replace(Some(Arc::new(next)));
        }
        let changed = tokio::select! {
            () = stop.cancelled() => return,
            changed = inputs.common.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
