//! A cluster's facts beside its exports: profile, gateways, bundle, interest, lanes.

use super::draft::Draft;
use super::exports::{gone, invalid};
use crate::command::{Refusal, RefusalCode};
use crate::endpoint::{Gateway, GatewayAddress, Locality};
use crate::events::ClusterFact;
use crate::identity::ClusterId;
use crate::name::{ClusterName, Namespace, NetworkName};
use crate::state::{Cluster, Lane, LaneVerdict};
use crate::trust::Bundle;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The most probe endpoints of a cluster.
const MAX_PROBES: usize = 8;
/// The most roots of a bundle, and the most bytes of each.
const MAX_ROOTS: usize = 8;
const MAX_ROOT_BYTES: usize = 8 * 1024;

pub(super) fn put(
    draft: &mut Draft,
    id: ClusterId,
    network: &NetworkName,
    locality: &Locality,
    probes: &[GatewayAddress],
) -> Result<(), Refusal> {
    let Some(cluster) = draft.cluster(id) else { return Err(gone()) };
    if probes.len() > MAX_PROBES {
        return Err(invalid(format!("{} probe endpoints, at most {MAX_PROBES} are kept", probes.len())));
    }
    sound_addresses("probe endpoint", probes.iter())?;
    if cluster.network != *network {
        draft.edit(id, Some(ClusterFact::Network), |cluster| cluster.network = network.clone());
    }
    if cluster.locality != *locality {
        draft.edit(id, Some(ClusterFact::Locality), |cluster| cluster.locality = locality.clone());
    }
    if *cluster.probes != probes {
        draft.edit(id, Some(ClusterFact::Probes), |cluster| cluster.probes = Arc::new(probes.to_vec()));
    }
    Ok(())
}

pub(super) fn put_gateways(draft: &mut Draft, id: ClusterId, gateways: &[Gateway]) -> Result<(), Refusal> {
    let Some(cluster) = draft.cluster(id) else { return Err(gone()) };
    let most = draft.state.meta.limits.gateways as usize;
    if gateways.len() > most {
        return Err(invalid(format!("{} gateways, at most {most} are kept", gateways.len())));
    }
    sound_addresses("gateway", gateways.iter().map(|gateway| &gateway.address))?;
    if *cluster.gateways != gateways {
        draft.edit(id, Some(ClusterFact::Gateways), |cluster| cluster.gateways = Arc::new(gateways.to_vec()));
    }
    Ok(())
}

fn sound_addresses<'a>(
    what: &str,
    addresses: impl Iterator<Item = &'a GatewayAddress>,
) -> Result<(), Refusal> {
    let mut seen = BTreeSet::new();
    for address in addresses {
        if address.port == 0 {
            return Err(invalid(format!("{what} {address}: port 0 can not be dialled")));
        }
        if !seen.insert(address) {
            return Err(invalid(format!("{what} {address} came twice")));
        }
    }
    Ok(())
}

pub(super) fn put_bundle(draft: &mut Draft, id: ClusterId, bundle: &Bundle) -> Result<(), Refusal> {
    let Some(cluster) = draft.cluster(id) else { return Err(gone()) };
    sound_bundle(&cluster, bundle)?;
    match cluster.bundle.as_deref() {
        Some(known) if known == bundle => Ok(()),
        Some(known) if known.sequence >= bundle.sequence => Err(invalid(format!(
            "bundle sequence {} does not follow {}, which is published already: raise it with every change",
            bundle.sequence, known.sequence
        ))),
        _ => {
            let bundle = Arc::new(bundle.clone());
            draft.edit(id, Some(ClusterFact::Bundle), |cluster| cluster.bundle = Some(bundle));
            Ok(())
        }
    }
}

fn sound_bundle(cluster: &Cluster, bundle: &Bundle) -> Result<(), Refusal> {
    if bundle.trust_domain != cluster.trust_domain {
        let rule = format!(
            "the bundle is of {}, but cluster {} may publish that of {} only",
            bundle.trust_domain, cluster.name, cluster.trust_domain
        );
        return Err(Refusal::new(RefusalCode::Forbidden, rule));
    }
    if bundle.roots.is_empty() || bundle.roots.len() > MAX_ROOTS {
        return Err(invalid(format!(
            "a bundle has 1 to {MAX_ROOTS} roots, this one has {}",
            bundle.roots.len()
        )));
    }
    if bundle.roots.iter().any(|root| root.is_empty() || root.len() > MAX_ROOT_BYTES) {
        return Err(invalid(format!("a root has 1 to {MAX_ROOT_BYTES} bytes")));
    }
    Ok(())
}

pub(super) fn put_interest(
    draft: &mut Draft,
    id: ClusterId,
    namespaces: &BTreeSet<Namespace>,
) -> Result<(), Refusal> {
    let Some(cluster) = draft.cluster(id) else { return Err(gone()) };
    let most = draft.state.meta.limits.namespaces as usize;
    if namespaces.len() > most {
        return Err(invalid(format!("{} namespaces, at most {most} are kept", namespaces.len())));
    }
    if *cluster.interest != *namespaces {
        let namespaces = Arc::new(namespaces.clone());
        draft.edit(id, Some(ClusterFact::Interest), |cluster| cluster.interest = namespaces);
    }
    Ok(())
}

/// Takes the lanes to members. A lane to a stranger (often: to a cluster that was just removed) is named in a refusal
/// and does not spoil the others.
pub(super) fn put_lanes(
    draft: &mut Draft,
    id: ClusterId,
    lanes: &[(ClusterName, LaneVerdict, Option<u32>)],
) -> Result<(), Refusal> {
    let mut strangers = BTreeSet::new();
    for (name, verdict, rtt_us) in lanes {
        match draft.state.by_name.get(name).copied().filter(|target| *target != id) {
            Some(target) => put_lane(draft, id, target, *verdict, *rtt_us),
            None => {
                strangers.insert(name.as_str());
            }
        }
    }
    if strangers.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = strangers.into_iter().collect();
    let rule = format!("no lane leads to {}: not another member of this federation", names.join(", "));
    Err(Refusal::new(RefusalCode::NotFound, rule))
}

/// Forgets lanes; one that is not there, or leads to a cluster that was removed, is forgotten already.
pub(super) fn remove_lanes(draft: &mut Draft, id: ClusterId, targets: &BTreeSet<ClusterName>) {
    for name in targets {
        let target = draft.state.by_name.get(name).copied();
        let known = draft.cluster(id).and_then(|cluster| target.filter(|t| cluster.lanes.contains_key(t)));
        if let Some(target) = known {
            draft.edit(id, None, |cluster| {
                cluster.lanes.remove(&target);
            });
            draft.events.lanes.insert((id, target));
        }
    }
}

fn put_lane(draft: &mut Draft, id: ClusterId, target: ClusterId, verdict: LaneVerdict, rtt_us: Option<u32>) {
    let known = draft.state.clusters.get(&id).and_then(|cluster| cluster.lanes.get(&target).copied());
    let turned = known.is_none_or(|lane| lane.verdict != verdict);
    let since = known.filter(|_| !turned).map_or(draft.now(), |lane| lane.since);
    let lane = Lane { verdict, since, rtt_us };
    if known == Some(lane) {
        return;
    }
    draft.edit(id, None, |cluster| {
        cluster.lanes.insert(target, lane);
    });
    if turned {
        draft.events.lanes.insert((id, target));
    }
}
