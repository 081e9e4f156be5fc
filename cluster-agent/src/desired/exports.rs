//! ServiceExports with their conditions. The spec is not repeated: it is the author's.

use super::condition::{Condition, Draft};
use super::imports::Metadata;
use super::{Sources, Stamps};
use crate::catalog::{Shard, validity};
use sealane_core::command::RefusalCode;
use sealane_core::name::ServiceKey;
use sealane_core::service::Invalid;
use sealane_core::view::{Conflict, ExportStatus, ViewItem, ViewKey};
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ServiceExport {
    api_version: &'static str,
    kind: &'static str,
    metadata: Metadata,
    status: ExportConditions,
}

#[derive(Debug, Serialize)]
struct ExportConditions {
    conditions: Vec<Condition>,
}

pub(super) fn service_export(
    sources: &Sources,
    service: &ServiceKey,
    shard: &Shard,
    path: &str,
    stamps: Stamps<'_>,
) -> ServiceExport {
    let status = match sources.exports.get(&ViewKey::Export(service.clone())) {
        Some(ViewItem::Export(status)) => Some(status.as_ref()),
        _ => None,
    };
    let drafts = [
        Some(valid(service, shard)),
        Some(ready(sources, service, shard, status)),
        status.filter(|_| validity(shard).is_ok()).map(|s| conflict(&s.conflicts)),
    ];
    let stamp = |draft| stamps.transitions.stamp(path, draft, shard.generation, stamps.now);
    ServiceExport {
        api_version: "multicluster.x-k8s.io/v1beta1",
        kind: "ServiceExport",
        metadata: Metadata::of(service, BTreeMap::new(), BTreeMap::new()),
        status: ExportConditions { conditions: drafts.into_iter().flatten().map(stamp).collect() },
    }
}

fn draft(kind: &'static str, status: &'static str, reason: &str, message: String) -> Draft {
    Draft { kind, status, reason: reason.to_owned(), message }
}

fn valid(service: &ServiceKey, shard: &Shard) -> Draft {
    match validity(shard) {
        Ok(()) if shard.notes.is_empty() => {
            draft("Valid", "True", "Valid", format!("Service {service} can be exported"))
        }
        Ok(()) => draft("Valid", "True", "Valid", shard.notes.join("; ")),
        Err(Invalid::NoService) => {
            draft("Valid", "False", "NoService", format!("there is no Service {service}"))
        }
        Err(Invalid::InvalidServiceType) => {
            let message = format!("Service {service} is of a type that can not be exported");
            draft("Valid", "False", "InvalidServiceType", message)
        }
    }
}

fn ready(sources: &Sources, service: &ServiceKey, shard: &Shard, status: Option<&ExportStatus>) -> Draft {
    if validity(shard).is_err() {
        return draft("Ready", "False", "Pending", "the export is not valid".to_owned());
    }
    if let Some(refusal) = sources.refused.get(service) {
        return draft("Ready", "False", "Failed", refusal.message.clone());
    }
    match status.map(|s| &s.ready) {
        Some(Ok(())) => {
            let importers = status.map_or(0, |s| s.importers.len());
            draft("Ready", "True", "Exported", format!("other clusters that import it: {importers}"))
        }
        // What the store has of an older, invalid Service; the newer one is on its way.
        Some(Err(refusal)) if refusal.code == RefusalCode::Invalid => pending(),
        Some(Err(refusal)) => draft("Ready", "False", "Failed", refusal.message.clone()),
        None => pending(),
    }
}

fn pending() -> Draft {
    draft("Ready", "Unknown", "Pending", "the federation has not confirmed it yet".to_owned())
}

fn conflict(conflicts: &[Conflict]) -> Draft {
    if conflicts.is_empty() {
        return draft("Conflict", "False", "NoConflicts", "all exports of this service agree".to_owned());
    }
    let mut reasons: Vec<&str> = conflicts.iter().map(|c| c.field.reason()).collect();
    reasons.dedup();
    let messages: Vec<&str> = conflicts.iter().map(|c| c.message.as_str()).collect();
    draft("Conflict", "True", &reasons.join(","), messages.join(" "))
}
