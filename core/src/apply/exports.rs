//! Exports: what a cluster's catalog may say of a service.

use super::draft::Draft;
use crate::command::{Refusal, RefusalCode};
use crate::identity::ClusterId;
use crate::name::ServiceKey;
use crate::service::{Export, ExportSpec, Port};
use crate::state::{Cluster, Limits, Shard};
use imbl::OrdMap;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The longest free text of one property (application protocol, traffic distribution).
const MAX_TEXT: usize = 253;
/// The most clusters that one export may name as its importers.
const MAX_IMPORTERS: usize = 10_000;

pub(super) fn put(
    draft: &mut Draft,
    id: ClusterId,
    service: &ServiceKey,
    export: &Export,
) -> Result<(), Refusal> {
    let Some(cluster) = draft.cluster(id) else { return Err(gone()) };
    granted(&cluster, service)?;
    sound(service, export, &draft.state.meta.limits)?;
    let revision = draft.state.meta.revision;
    let shard = match draft.state.shard(service, id) {
        Some(known) if *known.export == *export => return Ok(()),
        Some(known) => Shard { export: Arc::new(export.clone()), changed: revision, ..(**known).clone() },
        None => {
            room(draft, &cluster)?;
            let observed = draft.state.meta.next_observed;
            draft.state.meta.next_observed += 1;
            Shard { export: Arc::new(export.clone()), observed, endpoints: OrdMap::new(), changed: revision }
        }
    };
    draft.put_shard(service, id, shard, true);
    Ok(())
}

/// Drops every export but these.
pub(super) fn retain(draft: &mut Draft, id: ClusterId, services: &BTreeSet<ServiceKey>) {
    let stale: Vec<ServiceKey> =
        draft.state.services_of(id).filter(|s| !services.contains(*s)).cloned().collect();
    for service in &stale {
        draft.remove_shard(service, id);
    }
}

fn granted(cluster: &Cluster, service: &ServiceKey) -> Result<(), Refusal> {
    if cluster.exports.covers(&service.namespace) {
        return Ok(());
    }
    let rule = format!(
        "the export grant \"{}\" of cluster {} does not cover namespace {}: export it from one that is covered, or remove \
         the cluster and let it join again with a grant that covers this one",
        cluster.exports, cluster.name, service.namespace
    );
    Err(Refusal::new(RefusalCode::Forbidden, rule))
}

fn room(draft: &Draft, cluster: &Cluster) -> Result<(), Refusal> {
    let most = draft.state.meta.limits.services;
    if draft.state.services_of(cluster.id).count() < most as usize {
        return Ok(());
    }
    Err(invalid(format!(
        "cluster {} exports {most} services already, which is the limit: remove ServiceExports there",
        cluster.name
    )))
}

fn sound(service: &ServiceKey, export: &Export, limits: &Limits) -> Result<(), Refusal> {
    if export.importers.as_ref().is_some_and(|names| names.len() > MAX_IMPORTERS) {
        return Err(invalid(format!("export {service} names more than {MAX_IMPORTERS} importers")));
    }
    match &export.spec {
        Ok(spec) => sound_spec(service, spec, limits),
        Err(_) => Ok(()),
    }
}

fn sound_spec(service: &ServiceKey, spec: &ExportSpec, limits: &Limits) -> Result<(), Refusal> {
    sound_ports(service, &spec.ports, limits)?;
    let maps = [&spec.labels, &spec.annotations];
    let bytes: usize =
        maps.iter().flat_map(|map| map.iter()).map(|(key, value)| key.len() + value.len()).sum();
    if bytes > limits.label_bytes as usize {
        let most = limits.label_bytes;
        return Err(invalid(format!(
            "labels and annotations of {service} are {bytes} bytes, at most {most} are kept"
        )));
    }
    if spec.traffic_distribution.as_ref().is_some_and(|text| text.len() > MAX_TEXT) {
        return Err(invalid(format!("trafficDistribution of {service} is longer than {MAX_TEXT} bytes")));
    }
    let families: BTreeSet<_> = spec.ip_families.iter().collect();
    if families.len() != spec.ip_families.len() {
        return Err(invalid(format!("ipFamilies of {service} name a family twice")));
    }
    Ok(())
}

fn sound_ports(service: &ServiceKey, ports: &[Port], limits: &Limits) -> Result<(), Refusal> {
    if ports.len() > limits.ports as usize {
        let (have, most) = (ports.len(), limits.ports);
        return Err(invalid(format!("{service} has {have} ports, at most {most} are exported")));
    }
    let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    for port in ports {
        if port.port == 0 {
            return Err(invalid(format!("port {:?} of {service} is 0", port.name)));
        }
        if port.app_protocol.as_ref().is_some_and(|text| text.len() > MAX_TEXT) {
            return Err(invalid(format!("appProtocol of {service} is longer than {MAX_TEXT} bytes")));
        }
        if !names.insert(&port.name) || (ports.len() > 1 && port.name.as_str().is_empty()) {
            return Err(invalid(format!("each of several ports of {service} needs a name of its own")));
        }
        if !numbers.insert((port.protocol, port.port)) {
            return Err(invalid(format!("{service} has port {}/{} twice", port.port, port.protocol)));
        }
    }
    Ok(())
}

pub(super) fn invalid(message: String) -> Refusal {
    Refusal::new(RefusalCode::Invalid, message)
}

/// The cluster of a write went while the write ran; `write` checked it, so this names a defect rather than a guess.
pub(super) fn gone() -> Refusal {
    Refusal::new(RefusalCode::NotFound, "the cluster is not a member of this federation")
}
