//! `/explain`: every candidate, chosen or not, and why, from the same computation as the views.

use super::cluster::{lease, named, standing, witnesses};
use super::service::{From, candidate, conflict, key};
use super::types::{self, DecisionOutcome, SubjectKind};
use super::{Reading, Refused, locality};
use axum::Json;
use axum::extract::{Path, Query};
use sealane_core::compute::explain as weigh;
use sealane_core::liveness::Liveness;
use sealane_core::name::ServiceKey;
use sealane_core::report::{Decision, ExportReport, NotImported, Outcome, Subject};
use sealane_core::state::Lease;
use sealane_core::time::Millis;
use sealane_core::view::{Path as Way, Standing, Tier};
use sealane_proto::trouble;

/// Why a cluster gets a service as it does.
#[utoipa::path(get, path = "/api/v1/explain/{namespace}/{name}",
    params(("namespace" = String, Path, description = "The service's namespace"),
           ("name" = String, Path, description = "The service's name"), From, super::openapi::Consistent),
    responses((status = 200, body = types::Explanation), (status = "4XX", body = types::ApiError),
              (status = 503, body = types::ApiError)))]
pub(super) async fn explain(
    reading: Reading,
    Path(path): Path<(String, String)>,
    Query(from): Query<From>,
) -> Result<Json<types::Explanation>, Refused> {
    let key = key(&path)?;
    let importer = named(&reading, from.cluster()?)?;
    let report = weigh(&reading.facts, importer.id, &key);
    let report =
        report.ok_or_else(|| Refused::not_found(format!("there is no cluster {}", importer.name)))?;
    let now = reading.now();
    Ok(Json(types::Explanation {
        namespace: key.namespace.to_string(),
        name: key.name.to_string(),
        from: importer.name.to_string(),
        imported: report.not_imported.is_none(),
        not_imported: report.not_imported.as_ref().map(|why| not_imported(why, &key, importer.name.as_str())),
        exports: report.exports.iter().map(|e| export(e, now)).collect(),
        conflicts: report.conflicts.iter().map(conflict).collect(),
        decisions: report.decisions.iter().map(decision).collect(),
        troubles: troubles(&reading, &key),
        freshness: reading.freshness,
    }))
}

/// What agents said of the service last.
fn troubles(reading: &Reading, key: &ServiceKey) -> Vec<types::Trouble> {
    let contacts = reading.serving.leasing.contacts();
    let told = reading.facts.clusters.values().filter_map(|cluster| {
        let (_, said) = contacts.get(&cluster.id)?.applied.as_ref()?;
        let message = trouble::about(said, key)?.to_owned();
        Some(types::Trouble { cluster: cluster.name.to_string(), message })
    });
    let mut troubles: Vec<types::Trouble> = told.collect();
    troubles.sort_by(|a, b| a.cluster.cmp(&b.cluster));
    troubles
}

fn not_imported(why: &NotImported, key: &ServiceKey, importer: &str) -> String {
    match why {
        NotImported::NoExport => {
            format!("no cluster has a valid export of {key} that cluster {importer} may import")
        }
        NotImported::NoNamespace => {
            format!(
                "cluster {importer} does not import into the namespace {}: there is none, or its labels keep it out",
                key.namespace
            )
        }
        NotImported::NotGranted => {
            format!("the import grant of cluster {importer} does not cover the namespace {}", key.namespace)
        }
    }
}

fn export(export: &ExportReport, now: Millis) -> types::ExplainedExport {
    types::ExplainedExport {
        cluster: export.cluster.to_string(),
        observed: export.observed,
        counted: export.counted.is_ok(),
        reason: export.counted.as_ref().err().cloned(),
        standing: standing(&export.liveness),
        lease: lease(export.liveness.lease, now),
        witnesses: witnesses(&export.liveness),
        liveness: sentence(&export.liveness, now),
    }
}

fn sentence(liveness: &Liveness, now: Millis) -> String {
    let lease = match liveness.lease {
        Lease::Never => return "joining: it has opened no session yet".to_owned(),
        Lease::Live { .. } => return "live: its lease is live".to_owned(),
        Lease::Lapsed { since } => format!("its lease lapsed {} s ago", now.since(since) / 1000),
    };
    let Liveness { up, down, .. } = liveness;
    match liveness.standing {
        Standing::Withdrawn => {
            format!("withdrawn: {lease}, and of its witnesses {down} say down and {up} up")
        }
        Standing::Suspect if up + down == 0 => {
            format!("suspect: {lease}, but no witness counts, so nothing is withdrawn")
        }
        Standing::Suspect => {
            format!(
                "suspect: {lease}, but of its witnesses {down} say down and {up} up, so nothing is withdrawn"
            )
        }
        Standing::Live => format!("live: {lease}"),
    }
}

fn decision(decision: &Decision) -> types::Decision {
    let (kind, address, endpoint, place, spiffe_id) = match &decision.subject {
        Subject::Endpoint { id, address, locality, spiffe_id } => {
            (SubjectKind::Endpoint, address.to_string(), Some(id.to_string()), locality, spiffe_id.as_ref())
        }
        Subject::Gateway { address, locality } => {
            (SubjectKind::Gateway, address.clone(), None, locality, None)
        }
    };
    let (outcome, reason, chosen) = match &decision.outcome {
        Outcome::Chosen(c) => (DecisionOutcome::Chosen, why_chosen(c.tier, &c.path), Some(candidate(c))),
        Outcome::BehindGateway => {
            let reason = "it is in another network and is reached through its cluster's gateways".to_owned();
            (DecisionOutcome::BehindGateway, reason, None)
        }
        Outcome::Rejected(rejection) => (DecisionOutcome::Rejected, rejection.message().to_owned(), None),
    };
    types::Decision {
        cluster: decision.cluster.to_string(),
        kind,
        address,
        endpoint,
        locality: locality(place),
        spiffe_id: spiffe_id.map(ToString::to_string),
        outcome,
        reason,
        candidate: chosen,
    }
}

fn why_chosen(tier: Tier, path: &Way) -> String {
    let tier = match tier {
        Tier::Local => "in the importer's own cluster, so it is tried first",
        Tier::Remote => "in another cluster, for when no local endpoint works",
        Tier::Avoided => "in a cluster that the importer's own probes do not reach: a last resort",
    };
    let path = match path {
        Way::Direct { .. } => "reached directly",
        Way::Gateway { .. } => "reached through this gateway, because it is in another network",
    };
    format!("{tier}; {path}")
}
