//! The conditions of ServiceExports. Their spec is not ours.

use super::Sources;
use super::condition::{Condition, Draft, shorten};
use crate::catalog::{Shard, validity};
use sealane_core::command::RefusalCode;
use sealane_core::name::ServiceKey;
use sealane_core::service::Invalid;
use sealane_core::view::{Conflict, ExportStatus, ViewItem, ViewKey};

/// What an export says that the store refuses.
#[must_use]
pub fn refusal(why: &str) -> String {
    format!("the federation refuses the export: {why}")
}

/// The conditions of an export, each with the generation that it is about: `Valid`, `Ready` and, once the store has judged
/// it, `Conflict`.
///
/// `before` is what the export says. What the view says before the store acknowledged this generation goes on to be about
/// the one that it was about; where there was none, nothing is known yet.
#[must_use]
pub fn conditions(
    sources: &Sources,
    service: &ServiceKey,
    shard: &Shard,
    before: &[Condition],
) -> Vec<(Draft, Option<i64>)> {
    let status = match sources.exports.get(&ViewKey::Export(service.clone())) {
        Some(ViewItem::Export(status)) => Some(status.as_ref()),
        _ => None,
    };
    let is_valid = validity(shard).is_ok();
    let current = !is_valid || sources.confirms(service, shard);
    let about = |kind: &str| match before.iter().find(|c| c.kind == kind && c.status != "Unknown") {
        _ if current => Some(shard.generation),
        former => former.map(|former| former.observed_generation),
    };
    let ready = ready(sources, service, shard, status);
    let ready = match about("Ready").filter(|_| ready.status != "Unknown") {
        Some(generation) => (ready, generation),
        None => (pending(), shard.generation),
    };
    let conflict = status.filter(|_| is_valid).map(|s| conflict(&s.conflicts));
    let conflict = conflict.and_then(|conflict| Some((conflict, about("Conflict")?)));
    [Some((valid(service, shard), shard.generation)), Some(ready), conflict].into_iter().flatten().collect()
}

fn valid(service: &ServiceKey, shard: &Shard) -> Draft {
    match validity(shard) {
        Ok(()) => Draft::new("Valid", "True", "Valid", format!("Service {service} can be exported")),
        Err(Invalid::NoService) => {
            Draft::new("Valid", "False", "NoService", format!("there is no Service {service}"))
        }
        Err(Invalid::InvalidServiceType) => {
            let message = format!("Service {service} is of a type that can not be exported");
            Draft::new("Valid", "False", "InvalidServiceType", message)
        }
    }
}

fn ready(sources: &Sources, service: &ServiceKey, shard: &Shard, status: Option<&ExportStatus>) -> Draft {
    if validity(shard).is_err() {
        return Draft::new("Ready", "False", "Pending", "the export is not valid".to_owned());
    }
    if let Some(refusal) = sources.refused.get(service) {
        return Draft::new("Ready", "False", "Failed", refusal.message.clone());
    }
    match status.map(|s| &s.ready) {
        Some(Ok(())) => {
            let importers = status.map_or(0, |s| s.importers.len());
            let mut message = format!("other clusters that import it: {importers}");
            for note in &shard.notes {
                message.push_str("; ");
                message.push_str(note);
            }
            Draft::new("Ready", "True", "Exported", shorten(message))
        }
        // What the store has of an older, invalid Service; the newer one is on its way.
        Some(Err(refusal)) if refusal.code == RefusalCode::Invalid => pending(),
        Some(Err(refusal)) => Draft::new("Ready", "False", "Failed", refusal.message.clone()),
        None => pending(),
    }
}

fn pending() -> Draft {
    Draft::new("Ready", "Unknown", "Pending", "the federation has not confirmed it yet".to_owned())
}

fn conflict(conflicts: &[Conflict]) -> Draft {
    if conflicts.is_empty() {
        return Draft::new(
            "Conflict",
            "False",
            "NoConflicts",
            "all exports of this service agree".to_owned(),
        );
    }
    let mut reasons: Vec<&str> = conflicts.iter().map(|c| c.field.reason()).collect();
    reasons.dedup();
    let messages: Vec<&str> = conflicts.iter().map(|c| c.message.as_str()).collect();
    Draft::new("Conflict", "True", &reasons.join(","), messages.join(" "))
}
