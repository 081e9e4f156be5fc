//! How a cluster's own export stands.

use super::{Computation, counts, imports, wants};
use crate::command::{Refusal, RefusalCode};
use crate::name::ServiceKey;
use crate::service::Invalid;
use crate::state::{Cluster, Shard};
use crate::view::ExportStatus;

pub(super) fn status(
    computation: &Computation<'_>,
    own: &Cluster,
    service: &ServiceKey,
) -> Option<ExportStatus> {
    let state = computation.state();
    let shard = state.shard(service, own.id)?;
    let ready = shard.export.spec.as_ref().map(|_| ()).map_err(|reason| refusal(*reason, service));
    // Every valid export takes part, whoever may import it: the conflict is the exporters' to settle.
    let conflicts = match &ready {
        Ok(()) => imports::merge_all(state, service, |_, _| true).map(|m| m.conflicts).unwrap_or_default(),
        Err(_) => Vec::new(),
    };
    let importers = state.clusters.values().filter(|other| admits(shard, own, other, service));
    let importers = importers.map(|other| other.name.clone()).collect();
    Some(ExportStatus { service: service.clone(), ready, conflicts, importers })
}

fn admits(shard: &Shard, own: &Cluster, other: &Cluster, service: &ServiceKey) -> bool {
    other.id != own.id && wants(other, &service.namespace) && counts(shard, own.id, other).is_ok()
}

fn refusal(reason: Invalid, service: &ServiceKey) -> Refusal {
    let why = match reason {
        Invalid::NoService => format!("there is no Service {service}"),
        Invalid::InvalidServiceType => {
            format!("Service {service} is of a type that can not be exported (ExternalName)")
        }
    };
    Refusal::new(RefusalCode::Invalid, format!("{}: {why}", reason.reason()))
}
