//! Endpoints: in chunks, each consistent with its cluster.

use super::draft::Draft;
use super::exports::{gone, invalid};
use crate::command::{Refusal, RefusalCode};
use crate::endpoint::Endpoint;
use crate::identity::ClusterId;
use crate::name::{EndpointId, ServiceKey};
use crate::state::{Cluster, Limits, Shard};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

/// The most endpoints that one change carries.
pub(super) const CHUNK: usize = 100;

pub(super) fn put(
    draft: &mut Draft,
    id: ClusterId,
    service: &ServiceKey,
    chunk: &[Endpoint],
) -> Result<(), Refusal> {
    let Some(cluster) = draft.cluster(id) else { return Err(gone()) };
    let Some(shard) = draft.state.shard(service, id).cloned() else {
        let rule = format!(
            "cluster {} does not export {service}: write the export before its endpoints",
            cluster.name
        );
        return Err(Refusal::new(RefusalCode::NotFound, rule));
    };
    sound_chunk(&cluster, service, chunk, &draft.state.meta.limits)?;
    let changed = chunk.iter().filter(|e| shard.endpoints.get(&e.id).is_none_or(|known| **known != **e));
    let mut endpoints = shard.endpoints.clone();
    endpoints.extend(changed.map(|e| (e.id.clone(), Arc::new(e.clone()))));
    let most = draft.state.meta.limits.endpoints;
    if endpoints.len() > most as usize {
        return Err(invalid(format!("{service} has more than {most} endpoints, which is the limit")));
    }
    commit(draft, id, service, &shard, endpoints);
    Ok(())
}

/// Keeps the endpoints that pass; of a service that is not exported there are none.
pub(super) fn keep(
    draft: &mut Draft,
    id: ClusterId,
    service: &ServiceKey,
    stays: impl Fn(&EndpointId) -> bool,
) {
    let Some(shard) = draft.state.shard(service, id).cloned() else { return };
    let mut endpoints = shard.endpoints.clone();
    for gone in shard.endpoints.keys().filter(|endpoint| !stays(endpoint)) {
        endpoints.remove(gone);
    }
    commit(draft, id, service, &shard, endpoints);
}

fn commit(
    draft: &mut Draft,
    id: ClusterId,
    service: &ServiceKey,
    shard: &Shard,
    endpoints: imbl::OrdMap<EndpointId, Arc<Endpoint>>,
) {
    if endpoints == shard.endpoints {
        return;
    }
    let changed = draft.state.meta.revision;
    draft.put_shard(service, id, Shard { endpoints, changed, ..shard.clone() }, false);
}

fn sound_chunk(
    cluster: &Cluster,
    service: &ServiceKey,
    chunk: &[Endpoint],
    limits: &Limits,
) -> Result<(), Refusal> {
    if chunk.len() > CHUNK {
        return Err(invalid(format!(
            "{} endpoints of {service} in one change, at most {CHUNK} are allowed",
            chunk.len()
        )));
    }
    let mut ids = BTreeSet::new();
    for endpoint in chunk {
        if !ids.insert(&endpoint.id) {
            return Err(invalid(format!("endpoint {} of {service} came twice in one change", endpoint.id)));
        }
        if let Some(flaw) = flaw(cluster, endpoint, limits) {
            return Err(invalid(format!("endpoint {} of {service}: {flaw}", endpoint.id)));
        }
    }
    Ok(())
}

fn flaw(cluster: &Cluster, endpoint: &Endpoint, limits: &Limits) -> Option<String> {
    if !routable(endpoint.address) {
        return Some(format!("nobody can dial {}", endpoint.address));
    }
    if endpoint.ports.len() > limits.ports as usize {
        return Some(format!("it has more than {} ports", limits.ports));
    }
    if endpoint.ports.values().any(|port| *port == 0) || endpoint.inbound_port == Some(0) {
        return Some("port 0 can not be dialled".to_owned());
    }
    match &endpoint.spiffe_id {
        Some(id) if *id.trust_domain() != cluster.trust_domain => Some(format!(
            "{id} is not in {}, the trust domain of cluster {}",
            cluster.trust_domain, cluster.name
        )),
        _ => None,
    }
}

fn routable(address: IpAddr) -> bool {
    !address.is_unspecified() && !address.is_multicast()
}
