//! `/services` and the endpoints that a cluster gets.

use super::cluster::named;
use super::types::{self, CandidatePath, Tier};
use super::{Reading, Refused, count, locality};
use axum::Json;
use axum::extract::{Path, Query};
use sealane_core::compute::{Computation, merge};
use sealane_core::identity::ClusterId;
use sealane_core::name::{ClusterName, ServiceKey};
use sealane_core::service::Export;
use sealane_core::state::{Shard, State};
use sealane_core::view::{self, Candidate, ViewItem, ViewKey};
use serde::Deserialize;
use std::collections::BTreeSet;

/// Who is asked about.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct From {
    /// The importing cluster.
    pub(super) from: Option<String>,
}

impl From {
    pub(super) fn cluster(&self) -> Result<&str, Refused> {
        let missing = || Refused::invalid("from: name the importing cluster, such as ?from=east");
        self.from.as_deref().filter(|f| !f.is_empty()).ok_or_else(missing)
    }
}

/// The services that anyone exports.
#[utoipa::path(get, path = "/api/v1/services", params(super::openapi::Consistent),
    responses((status = 200, body = types::Services), (status = "4XX", body = types::ApiError),
              (status = 503, body = types::ApiError)))]
pub(super) async fn services(reading: Reading) -> Result<Json<types::Services>, Refused> {
    let all = reading.compute(|reading| {
        let computation = Computation::new(&reading.facts);
        reading.facts.services().iter().filter_map(|key| service_of(&computation, key)).collect()
    });
    let (services, freshness) = all.await?;
    Ok(Json(types::Services { services, freshness }))
}

/// One service.
#[utoipa::path(get, path = "/api/v1/services/{namespace}/{name}",
    params(("namespace" = String, Path, description = "The service's namespace"),
           ("name" = String, Path, description = "The service's name"), super::openapi::Consistent),
    responses((status = 200, body = types::OneService), (status = "4XX", body = types::ApiError),
              (status = 503, body = types::ApiError)))]
pub(super) async fn service(
    reading: Reading,
    Path(path): Path<(String, String)>,
) -> Result<Json<types::OneService>, Refused> {
    let key = key(&path)?;
    let service = service_of(&Computation::new(&reading.facts), &key);
    let service = service.ok_or_else(|| Refused::not_found(format!("nobody exports {key}")))?;
    Ok(Json(types::OneService { service, freshness: reading.freshness }))
}

/// Where a cluster's connections to a service may go.
#[utoipa::path(get, path = "/api/v1/services/{namespace}/{name}/endpoints",
    params(("namespace" = String, Path, description = "The service's namespace"),
           ("name" = String, Path, description = "The service's name"), From, super::openapi::Consistent),
    responses((status = 200, body = types::Endpoints), (status = "4XX", body = types::ApiError),
              (status = 503, body = types::ApiError)))]
pub(super) async fn endpoints(
    reading: Reading,
    Path(path): Path<(String, String)>,
    Query(from): Query<From>,
) -> Result<Json<types::Endpoints>, Refused> {
    let key = key(&path)?;
    let importer = named(&reading, from.cluster()?)?;
    let item = Computation::new(&reading.facts).item(importer.id, &ViewKey::Import(key.clone()));
    let Some(ViewItem::Import(import)) = item else {
        let (ns, name) = (&key.namespace, &key.name);
        return Err(Refused::not_found(format!(
            "cluster {} does not import {key}; GET /api/v1/explain/{ns}/{name}?from={} says why",
            importer.name, importer.name
        )));
    };
    Ok(Json(types::Endpoints {
        namespace: key.namespace.to_string(),
        name: key.name.to_string(),
        from: importer.name.to_string(),
        candidates: import.candidates.iter().map(candidate).collect(),
        freshness: reading.freshness,
    }))
}

pub(super) fn key((namespace, name): &(String, String)) -> Result<ServiceKey, Refused> {
    let parsed = || Ok(ServiceKey { namespace: namespace.parse()?, name: name.parse()? });
    parsed().map_err(|e: sealane_core::name::NameError| Refused::invalid(e.to_string()))
}

fn service_of(computation: &Computation<'_>, key: &ServiceKey) -> Option<types::Service> {
    let state = computation.state();
    let mut shards: Vec<(ClusterId, &Shard)> =
        state.shards_of(key).map(|(id, shard)| (id, &**shard)).collect();
    shards.sort_by_key(|(id, shard)| (shard.observed, *id));
    if shards.is_empty() {
        return None;
    }
    let named = |id: &ClusterId| state.clusters.get(id).map(|c| &c.name);
    let constituents: Vec<(&ClusterName, &Export)> =
        shards.iter().filter_map(|(id, shard)| Some((named(id)?, &*shard.export))).collect();
    let merged = merge(&constituents);
    Some(types::Service {
        namespace: key.namespace.to_string(),
        name: key.name.to_string(),
        service_type: merged.as_ref().map(|m| m.spec.service_type.as_str().to_owned()),
        ports: merged.iter().flat_map(|m| &m.spec.ports).map(port).collect(),
        exports: shards.iter().filter_map(|(id, shard)| Some(export(named(id)?, shard))).collect(),
        conflicts: merged.iter().flat_map(|m| &m.conflicts).map(conflict).collect(),
        importers: importers(computation, key, state).iter().map(ToString::to_string).collect(),
    })
}

fn importers(computation: &Computation<'_>, key: &ServiceKey, state: &State) -> BTreeSet<ClusterName> {
    let import = ViewKey::Import(key.clone());
    let imports = |id: ClusterId| computation.item(id, &import).is_some();
    state.clusters.values().filter(|c| imports(c.id)).map(|c| c.name.clone()).collect()
}

fn port(port: &sealane_core::service::Port) -> types::Port {
    types::Port {
        name: port.name.to_string(),
        port: port.port,
        protocol: port.protocol.to_string(),
        app_protocol: port.app_protocol.clone(),
    }
}

fn export(cluster: &ClusterName, shard: &Shard) -> types::Export {
    let invalid = shard.export.spec.as_ref().err();
    types::Export {
        cluster: cluster.to_string(),
        valid: invalid.is_none(),
        reason: invalid.map(|i| i.reason().to_owned()),
        observed: shard.observed,
        endpoints: count(shard.endpoints.len()),
        ready: count(shard.endpoints.values().filter(|e| e.ready).count()),
        changed: shard.changed.to_string(),
    }
}

pub(super) fn conflict(conflict: &view::Conflict) -> types::Conflict {
    types::Conflict { reason: conflict.field.reason().to_owned(), message: conflict.message.clone() }
}

pub(super) fn candidate(candidate: &Candidate) -> types::Candidate {
    let tier = match candidate.tier {
        view::Tier::Local => Tier::Local,
        view::Tier::Remote => Tier::Remote,
        view::Tier::Avoided => Tier::Avoided,
    };
    let cluster = candidate.cluster.to_string();
    match &candidate.path {
        view::Path::Direct { id, address, ports, locality: place, spiffe_id, inbound_port, hostname } => {
            types::Candidate {
                cluster,
                tier,
                path: CandidatePath::Direct,
                address: address.to_string(),
                endpoint: Some(id.to_string()),
                ports: ports.iter().map(|(name, port)| (name.to_string(), u32::from(*port))).collect(),
                locality: locality(place),
                identities: spiffe_id.iter().map(ToString::to_string).collect(),
                inbound_port: *inbound_port,
                hostname: hostname.as_ref().map(ToString::to_string),
            }
        }
        view::Path::Gateway { address, locality: place, weights, identities, .. } => types::Candidate {
            cluster,
            tier,
            path: CandidatePath::Gateway,
            address: address.to_string(),
            endpoint: None,
            ports: weights.iter().map(|(name, weight)| (name.to_string(), *weight)).collect(),
            locality: locality(place),
            identities: identities.iter().map(ToString::to_string).collect(),
            inbound_port: None,
            hostname: None,
        },
    }
}
