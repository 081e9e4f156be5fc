//! What the objects of a service show to be wrong with it here, in a sentence: what people elsewhere can not see. Every
//! replica reads it, whoever writes. Pure.

use super::observed::Observed;
use super::plan::foreign;
use super::seen::{Kind, ObjectKey, Owner, Seen};
use crate::desired::{Condition, refusal};
use sealane_core::name::ServiceKey;

/// What is wrong with a service: its import can not be made, or the federation or the API server refuses it. `wanted` says
/// whether it is imported here.
pub(super) fn of(observed: &Observed, service: &ServiceKey, wanted: bool) -> Option<String> {
    let import = observed.import(service).filter(|_| wanted).and_then(|seen| match &seen.owner {
        Owner::Foreign(writers) => {
            let (kind, namespace, name) = (Kind::Import, service.namespace.clone(), service.name.to_string());
            Some(foreign(&ObjectKey { kind, namespace, name }, writers))
        }
        Owner::Ours | Owner::Unlabelled => failed(seen).map(|why| format!("the import is not ready: {why}")),
    });
    // It repeats what its own cluster's import says.
    let export = || observed.export(service).and_then(failed).map(refusal);
    import.or_else(export)
}

/// Why an object is not ready, where that is more than a wait.
fn failed(seen: &Seen) -> Option<&str> {
    let is_it = |c: &&Condition| c.kind == "Ready" && c.status == "False" && c.reason == "Failed";
    seen.conditions.iter().find(is_it).map(|c| c.message.as_str())
}
