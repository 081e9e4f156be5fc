//! `/clusters`.

use super::types::{self, LaneVerdict, LeaseState, WitnessSays};
use super::{Reading, Refused, count, locality, millis, rfc3339};
use crate::lease::{Contact, Contacts};
use axum::Json;
use axum::extract::Path;
use sealane_core::compute::Computation;
use sealane_core::identity::InstanceId;
use sealane_core::liveness::{self, Liveness, NoWitness};
use sealane_core::state::{self, Admission, Cluster, Issuer, Lease, Session};
use sealane_core::time::Millis;
use sealane_core::view::{Standing, ViewKey};
use std::time::Instant;

/// The clusters.
#[utoipa::path(get, path = "/api/v1/clusters", params(super::openapi::Consistent),
    responses((status = 200, body = types::Clusters), (status = "4XX", body = types::ApiError),
              (status = 503, body = types::ApiError)))]
pub(super) async fn clusters(reading: Reading) -> Result<Json<types::Clusters>, Refused> {
    let added = reading.facts.admissions.values().map(|a| added(&reading.facts, a)).collect();
    let all = reading.compute(|reading| {
        let contacts = reading.serving.leasing.contacts();
        let named = reading.facts.by_name.values().filter_map(|id| reading.facts.clusters.get(id));
        named.map(|c| cluster_of(reading, c, &contacts)).collect()
    });
    let (clusters, freshness) = all.await?;
    Ok(Json(types::Clusters { clusters, added, freshness }))
}

fn added(state: &state::State, admission: &Admission) -> types::Added {
    let keys = match &admission.issuer {
        Issuer::Keys { keys, .. } => keys.iter().map(|key| key.kid.clone().unwrap_or_default()).collect(),
        Issuer::Discovery { .. } => Vec::new(),
    };
    types::Added {
        name: admission.cluster.to_string(),
        member: state.by_name.contains_key(&admission.cluster),
        trust_domain: admission.trust_domain.to_string(),
        exports: admission.exports.namespaces.clone(),
        imports: admission.imports.namespaces.clone(),
        issuer: admission.issuer.name().map(ToString::to_string),
        fetched: matches!(admission.issuer, Issuer::Discovery { .. }),
        keys,
        subject: admission.subject.to_string(),
        last_joined: admission.last_joined.map(rfc3339),
    }
}

/// One cluster.
#[utoipa::path(get, path = "/api/v1/clusters/{name}",
    params(("name" = String, Path, description = "The cluster's name"), super::openapi::Consistent),
    responses((status = 200, body = types::OneCluster), (status = "4XX", body = types::ApiError),
              (status = 503, body = types::ApiError)))]
pub(super) async fn cluster(
    reading: Reading,
    Path(name): Path<String>,
) -> Result<Json<types::OneCluster>, Refused> {
    let cluster = named(&reading, &name)?;
    let contacts = reading.serving.leasing.contacts();
    let cluster = cluster_of(&reading, &cluster, &contacts);
    Ok(Json(types::OneCluster { cluster, freshness: reading.freshness }))
}

/// The cluster of a name that somebody typed.
pub(super) fn named(reading: &Reading, name: &str) -> Result<std::sync::Arc<Cluster>, Refused> {
    let parsed = name.parse().map_err(|e| Refused::invalid(format!("{e}")))?;
    let cluster = reading.facts.cluster_named(&parsed).cloned();
    cluster.ok_or_else(|| {
        Refused::not_found(format!("there is no cluster {name}; GET /api/v1/clusters lists them"))
    })
}

fn cluster_of(reading: &Reading, c: &Cluster, contacts: &Contacts) -> types::Cluster {
    let now = reading.now();
    let state = &reading.facts;
    let liveness = liveness::verdict(state, c.id);
    let view = Computation::new(state).view(c.id);
    let imports = view.items.keys().filter(|key| matches!(key, ViewKey::Import(_))).count();
    let contact = contacts.get(&c.id);
    types::Cluster {
        name: c.name.to_string(),
        id: c.id.0,
        trust_domain: c.trust_domain.to_string(),
        uid: c.uid.as_ref().map(ToString::to_string),
        standing: standing(&liveness),
        lease: lease(c.lease, now),
        last_heard_ms: contact
            .and_then(|c| c.heard)
            .map(|at| millis(Instant::now().saturating_duration_since(at))),
        joined: rfc3339(c.joined),
        certificate_not_after: rfc3339(c.certificate.not_after),
        session: c.session.as_ref().map(session),
        network: c.network.to_string(),
        locality: locality(&c.locality),
        gateways: c.gateways.iter().map(gateway).collect(),
        probes: c.probes.iter().map(ToString::to_string).collect(),
        interest: c.interest.iter().map(ToString::to_string).collect(),
        bundle_sequence: c.bundle.as_ref().map(|b| b.sequence),
        exports: count(state.services_of(c.id).count()),
        imports: count(imports),
        lanes: lanes(state, c),
        witnesses: witnesses(&liveness),
        view: contact.and_then(applied),
    }
}

fn applied(contact: &Contact) -> Option<types::AppliedView> {
    let (revision, error) = contact.applied.as_ref()?;
    Some(types::AppliedView {
        revision: revision.to_string(),
        error: error.clone(),
        server: contact.server.0,
    })
}

/// The verdict; who never opened a session is not suspected of anything.
pub(super) fn standing(liveness: &Liveness) -> types::Standing {
    match (liveness.lease, liveness.standing) {
        (Lease::Never, _) => types::Standing::Joining,
        (_, Standing::Live) => types::Standing::Live,
        (_, Standing::Suspect) => types::Standing::Suspect,
        (_, Standing::Withdrawn) => types::Standing::Withdrawn,
    }
}

pub(super) fn lease(lease: Lease, now: Millis) -> types::Lease {
    let (state, since) = match lease {
        Lease::Never => (LeaseState::Never, None),
        Lease::Live { since } => (LeaseState::Live, Some(since)),
        Lease::Lapsed { since } => (LeaseState::Lapsed, Some(since)),
    };
    types::Lease { state, since_ms: since.map(|at| now.since(at)), since: since.map(rfc3339) }
}

pub(super) fn witnesses(liveness: &Liveness) -> Vec<types::Witness> {
    let one = |w: &liveness::Witness| {
        let (says, since) = match w.says {
            Ok((state::LaneVerdict::Up, since)) => (WitnessSays::Up, Some(rfc3339(since))),
            Ok((state::LaneVerdict::Down, since)) => (WitnessSays::Down, Some(rfc3339(since))),
            Err(NoWitness::NoLease) => (WitnessSays::NoLease, None),
            Err(NoWitness::NoReport) => (WitnessSays::NoReport, None),
        };
        types::Witness { cluster: w.cluster.to_string(), says, since }
    };
    liveness.witnesses.iter().map(one).collect()
}

fn session(session: &Session) -> types::Session {
    let other = |(instance, at): (InstanceId, Millis)| types::Fenced {
        instance: instance.to_string(),
        at: rfc3339(at),
    };
    types::Session {
        id: session.id.to_string(),
        instance: session.instance.to_string(),
        opened: rfc3339(session.opened),
        synced: session.synced,
        sequence: session.sequence,
        fenced: session.fenced.map(other),
        closed: session.closed,
        refused: session.refused.map(other),
    }
}

fn gateway(gateway: &sealane_core::endpoint::Gateway) -> types::Gateway {
    types::Gateway {
        address: gateway.address.to_string(),
        network: gateway.network.to_string(),
        locality: locality(&gateway.locality),
        weight: gateway.weight,
        ready: gateway.ready,
    }
}

fn lanes(state: &state::State, cluster: &Cluster) -> Vec<types::Lane> {
    let one = |(to, lane): (_, &state::Lane)| {
        let to = state.clusters.get(to)?.name.to_string();
        let verdict = match lane.verdict {
            state::LaneVerdict::Up => LaneVerdict::Up,
            state::LaneVerdict::Down => LaneVerdict::Down,
        };
        Some(types::Lane { to, verdict, since: rfc3339(lane.since), rtt_us: lane.rtt_us })
    };
    cluster.lanes.iter().filter_map(one).collect()
}
