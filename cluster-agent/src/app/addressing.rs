//! Who gives imports their addresses: this agent from a range of its own, or the cluster's API server.

use crate::addresses::{AddressError, Addresses};
use crate::config::{Changed, Given};
use crate::map;
use crate::sink::kubernetes::ImportAddresses;
use crate::view::Held;
use sealane_core::name::ServiceKey;
use tokio::sync::watch;

/// Where the addresses of imports come from.
pub(super) enum Addressing {
    /// From the range of this agent.
    Own(Addresses),
    /// From the API server, as the sink sees them; and what was taken from there last.
    Cluster(watch::Receiver<ImportAddresses>, ImportAddresses),
}

impl Addressing {
    /// As the API server gives them.
    pub(super) fn cluster(told: watch::Receiver<ImportAddresses>) -> Self {
        Addressing::Cluster(told, ImportAddresses::new())
    }

    /// Follows what changed. Gives the imports that have other addresses now.
    pub(super) fn follow(&mut self, changed: &Changed, held: &Held) -> Result<Vec<ServiceKey>, AddressError> {
        match self {
            Addressing::Own(addresses) => addresses.follow(changed.addressed(held)),
            Addressing::Cluster(told, last) => {
                let now = told.borrow_and_update().clone();
                let readdressed = map::changed(last, &now).cloned().collect();
                *last = now;
                Ok(readdressed)
            }
        }
    }

    /// The addresses of an import.
    pub(super) fn of(&self, service: &ServiceKey) -> Given {
        match self {
            Addressing::Own(addresses) => Given::so_far(addresses.of(service).into_iter().collect()),
            Addressing::Cluster(_, last) => last.get(service).map(|g| Given::clone(g)).unwrap_or_default(),
        }
    }

    /// Waits until they may be others, though nothing else changed.
    pub(super) async fn changed(&mut self) {
        let changed = match self {
            Addressing::Cluster(told, _) => told.changed().await.is_ok(),
            Addressing::Own(_) => false,
        };
        if !changed {
            // Those of the own range change with the imports, and a sink that ended changes none.
            std::future::pending::<()>().await;
        }
    }
}
