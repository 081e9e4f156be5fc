//! Digests: how an agent and the store find out what differs without sending it.
//!
//! SHA-256 over the canonical encoding of ground facts. Both sides call these functions, the agent over its own
//! catalog and the store over its records. What only the store knows (order of observation, revisions) stays out, and
//! so does the order of lists whose order means nothing.

use crate::Wire;
use prost::Message;
use sealane_core::endpoint::{Endpoint, Gateway, GatewayAddress, Locality};
use sealane_core::name::{Namespace, NetworkName};
use sealane_core::service::Export;
use sealane_core::state::{Hash, Shard};
use sealane_core::trust::Bundle;
use sealane_core::view::ViewItem;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;

/// Hashes parts with their lengths, under a name that no two kinds share.
fn of(kind: &str, parts: impl IntoIterator<Item = Vec<u8>>) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update(b"sealane digest 1 ");
    hasher.update(kind);
    hasher.update([0]);
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}

fn sorted(parts: impl Iterator<Item = Vec<u8>>) -> Vec<Vec<u8>> {
    let mut parts: Vec<_> = parts.collect();
    parts.sort();
    parts
}

/// An export with its endpoints, in any order.
pub fn shard<'a>(export: &Export, endpoints: impl IntoIterator<Item = &'a Endpoint>) -> Hash {
    let endpoints = sorted(endpoints.into_iter().map(Wire::encode));
    of("shard", std::iter::once(export.encode()).chain(endpoints))
}

/// The same of the store's record.
#[must_use]
pub fn of_shard(record: &Shard) -> Hash {
    shard(&record.export, record.endpoints.values().map(AsRef::as_ref))
}

/// A cluster's default network, locality and probe addresses.
#[must_use]
pub fn profile(network: &NetworkName, locality: &Locality, probes: &[GatewayAddress]) -> Hash {
    let head = [network.as_str().as_bytes().to_vec(), locality.encode()];
    of("profile", head.into_iter().chain(sorted(probes.iter().map(Wire::encode))))
}

/// A cluster's gateways.
#[must_use]
pub fn gateways(gateways: &[Gateway]) -> Hash {
    of("gateways", sorted(gateways.iter().map(Wire::encode)))
}

/// A trust bundle, or that there is none yet.
#[must_use]
pub fn bundle(bundle: Option<&Bundle>) -> Hash {
    of("bundle", bundle.map(Wire::encode))
}

/// The namespaces that a cluster imports into.
#[must_use]
pub fn interest(namespaces: &BTreeSet<Namespace>) -> Hash {
    of("interest", namespaces.iter().map(|n| n.as_str().as_bytes().to_vec()))
}

/// One item of a view.
#[must_use]
pub fn view_item(item: &ViewItem) -> Hash {
    of("view item", [item.to_wire().encode_to_vec()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategies;
    use proptest::prelude::*;
    use std::sync::Arc;

    proptest! {
        #[test]
        fn a_shard_digest_is_of_export_and_endpoints_only(
            record in strategies::shard(),
            observed in any::<u64>(),
            other in strategies::endpoint(),
        ) {
            let digest = of_shard(&record);
            let elsewhere = Shard { observed, changed: Default::default(), ..record.clone() };
            prop_assert_eq!(of_shard(&elsewhere), digest);
            let mut backwards: Vec<Endpoint> = record.endpoints.values().map(|e| (**e).clone()).collect();
            backwards.reverse();
            prop_assert_eq!(shard(&record.export, &backwards), digest);
            let mut more = record.clone();
            more.endpoints.insert(other.id.clone(), Arc::new(other.clone()));
            prop_assert_eq!(of_shard(&more) == digest, more.endpoints == record.endpoints);
        }

        #[test]
        fn a_digest_survives_the_wire(item in strategies::view_item()) {
            let back = ViewItem::decode(&item.encode()).unwrap();
            prop_assert_eq!(view_item(&back), view_item(&item));
        }
    }

    #[test]
    fn kinds_and_parts_do_not_run_together() {
        let names =
            |texts: &[&str]| texts.iter().map(|t| Namespace::parse(t).unwrap()).collect::<BTreeSet<_>>();
        assert_ne!(interest(&names(&["a", "b"])), interest(&names(&["ab"])));
        assert_ne!(interest(&names(&[])), gateways(&[]));
        assert_ne!(bundle(None), gateways(&[]));
    }
}
