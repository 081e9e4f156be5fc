//! Who imports from whom.

use crate::identity::ClusterId;
use crate::name::{ClusterName, Namespace};
use crate::service::Invalid;
use crate::state::{Cluster, Shard, State};

/// Why an export does not count for an importer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Uncounted {
    Invalid(Invalid),
    NotAdmitted,
}

impl Uncounted {
    pub(super) fn sentence(&self, exporter: &ClusterName, importer: &ClusterName) -> String {
        match self {
            Uncounted::Invalid(reason @ Invalid::NoService) => format!(
                "the export is not valid ({}): cluster {exporter} has no Service of that name; make one, or remove the \
                 ServiceExport",
                reason.reason()
            ),
            Uncounted::Invalid(reason @ Invalid::InvalidServiceType) => format!(
                "the export is not valid ({}): the Service of cluster {exporter} is an ExternalName; give it another type, or \
                 remove the ServiceExport",
                reason.reason()
            ),
            Uncounted::NotAdmitted => {
                format!(
                    "cluster {exporter} lets only named clusters import it, and {importer} is not among them"
                )
            }
        }
    }
}

/// Whether a cluster imports into a namespace: the namespace exists in it and its grant covers it.
pub(crate) fn wants(importer: &Cluster, namespace: &Namespace) -> bool {
    importer.interest.contains(namespace) && importer.imports.covers(namespace)
}

/// Whether an export counts for an importer. A cluster always sees its own.
pub(crate) fn counts(shard: &Shard, exporter: ClusterId, importer: &Cluster) -> Result<(), Uncounted> {
    if let Err(reason) = &shard.export.spec {
        return Err(Uncounted::Invalid(*reason));
    }
    match &shard.export.importers {
        Some(names) if exporter != importer.id && !names.contains(&importer.name) => {
            Err(Uncounted::NotAdmitted)
        }
        _ => Ok(()),
    }
}

/// Whether `importer` imports anything from `exporter`, another cluster.
pub(crate) fn imports_from(state: &State, importer: &Cluster, exporter: ClusterId) -> bool {
    if importer.id == exporter || importer.interest.is_empty() {
        return false;
    }
    // Services come in order, so one namespace is judged once.
    let mut judged: Option<(&Namespace, bool)> = None;
    state.services_of(exporter).any(|service| {
        let wanted = match judged {
            Some((namespace, wanted)) if *namespace == service.namespace => wanted,
            _ => wants(importer, &service.namespace),
        };
        judged = Some((&service.namespace, wanted));
        wanted && state.shard(service, exporter).is_some_and(|s| counts(s, exporter, importer).is_ok())
    })
}
