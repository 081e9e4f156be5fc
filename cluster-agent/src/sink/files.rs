//! The sink of a cluster that manifests describe: a directory of YAML files, as they would stand in the API server.
//!
//! What a file should say is made object by object and compared with what was written ([`diff`]); the [`Writer`] takes
//! the steps.

mod diff;
mod transitions;
mod writer;

pub use diff::{Action, diff};
pub use transitions::Transitions;
pub use writer::{WriteError, Writer, replace};

use crate::config::Outbound;
use crate::desired::{
    Condition, Draft, ImportSpec, ImportStatus, MANAGED_BY, MANAGER, Sources, Subject, conditions, family_of,
    slices,
};
use sealane_core::name::ServiceKey;
use sealane_core::reach::{OutOfReach, out_of_reach};
use sealane_core::service::{IpFamily, ServiceType};
use sealane_core::time::Millis;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// The first line of every file that is ours; what does not begin with it is somebody else's.
pub const MARK: &str = "# Written by sealane-agent. Changes are lost.\n";
/// The folders, one for each kind.
pub const FOLDERS: [&str; 3] = ["serviceimports", "endpointslices", "serviceexports"];
/// The API of imports and exports.
const API: &str = "multicluster.x-k8s.io/v1beta1";

/// Files by their path in the output directory.
pub type Output = BTreeMap<String, String>;

/// What stamps conditions.
#[derive(Debug, Clone, Copy)]
struct Stamps<'a> {
    /// Since when conditions are what they are.
    transitions: &'a Transitions,
    /// The time of conditions that change now.
    now: Millis,
}

impl Stamps<'_> {
    fn stamp(&self, path: &str, drafts: Vec<(Draft, Option<i64>)>) -> Vec<Condition> {
        let before = self.transitions.of(path);
        drafts.into_iter().map(|(draft, generation)| draft.stamp(before, generation, self.now)).collect()
    }
}

/// The whole output, brought up to date object by object.
#[derive(Debug, Default)]
pub struct Desired {
    sources: Sources,
    output: Output,
    /// The paths of each subject that has any.
    paths: BTreeMap<Subject, Vec<String>>,
}

impl Desired {
    /// The output.
    #[must_use]
    pub fn output(&self) -> &Output {
        &self.output
    }

    /// Follows the sources. Gives the paths whose files may be others now.
    ///
    /// # Errors
    /// When an object can not be written as YAML, which is a defect; it is tried again the next time.
    pub fn follow(
        &mut self,
        sources: Sources,
        transitions: &Transitions,
        now: Millis,
    ) -> Result<BTreeSet<String>, serde_saphyr::ser::Error> {
        let stamps = Stamps { transitions, now };
        let mut made = Vec::new();
        for subject in sources.changed_since(&self.sources) {
            let files = match &subject {
                Subject::Import(service) => import(&sources, service, stamps)?,
                Subject::Export(service) => export(&sources, service, stamps)?,
            };
            made.push((subject, files));
        }
        let mut touched = BTreeSet::new();
        for (subject, files) in made {
            for path in self.paths.remove(&subject).unwrap_or_default() {
                self.output.remove(&path);
                touched.insert(path);
            }
            touched.extend(files.keys().cloned());
            if !files.is_empty() {
                self.paths.insert(subject, files.keys().cloned().collect());
            }
            self.output.extend(files);
        }
        self.sources = sources;
        Ok(touched)
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ServiceImport {
    api_version: &'static str,
    kind: &'static str,
    metadata: Metadata,
    spec: ImportSpec,
    status: ImportStatus,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ServiceExport {
    api_version: &'static str,
    kind: &'static str,
    metadata: Metadata,
    status: ExportStatus,
}

#[derive(Debug, Serialize)]
struct ExportStatus {
    conditions: Vec<Condition>,
}

#[derive(Debug, Serialize)]
struct Metadata {
    name: String,
    namespace: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

impl Metadata {
    fn of(service: &ServiceKey) -> Self {
        let (name, namespace) = (service.name.to_string(), service.namespace.to_string());
        Metadata { name, namespace, labels: BTreeMap::new(), annotations: BTreeMap::new() }
    }
}

fn import(
    sources: &Sources,
    service: &ServiceKey,
    stamps: Stamps<'_>,
) -> Result<Output, serde_saphyr::ser::Error> {
    let mut files = Output::new();
    let Some(outbound) = sources.import(service) else { return Ok(files) };
    let path = format!("serviceimports/{}.{}.yaml", service.namespace, service.name);
    let text = render(&service_import(outbound, &path, stamps))?;
    files.insert(path, text);
    for slice in slices(&outbound.import) {
        let name = slice.metadata.name.clone().unwrap_or_default();
        files.insert(format!("endpointslices/{}.{name}.yaml", service.namespace), render(&slice)?);
    }
    Ok(files)
}

fn service_import(outbound: &Outbound, path: &str, stamps: Stamps<'_>) -> ServiceImport {
    let import = &outbound.import;
    // Proxies take connections at these addresses whatever family the endpoints have.
    let families: Vec<IpFamily> = match import.service_type {
        ServiceType::Headless => import.ip_families.clone(),
        ServiceType::ClusterSetIp => outbound.addresses.iter().map(|a| family_of(*a)).collect(),
    };
    let mut metadata = Metadata::of(&import.service);
    metadata.labels.clone_from(&import.labels);
    metadata.labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    metadata.annotations.clone_from(&import.annotations);
    let conditions = stamps.stamp(path, vec![(ready(outbound), None)]);
    ServiceImport {
        api_version: API,
        kind: "ServiceImport",
        metadata,
        spec: ImportSpec::of(import, &outbound.addresses, &families),
        status: ImportStatus::of(&import.clusters, conditions),
    }
}

fn ready(outbound: &Outbound) -> Draft {
    let import = &outbound.import;
    if import.service_type == ServiceType::ClusterSetIp && outbound.addresses.is_empty() {
        let message = "no address is left in this cluster's --address-range".to_owned();
        return Draft::new("Ready", "False", "Pending", message);
    }
    if let Some(OutOfReach { reason, message }) = out_of_reach(import) {
        return Draft::new("Ready", "False", &reason, message);
    }
    let (candidates, clusters) = (import.candidates.len(), import.clusters.len());
    let message = format!("{candidates} places to go to from {clusters} clusters");
    Draft::new("Ready", "True", "Ready", message)
}

fn export(
    sources: &Sources,
    service: &ServiceKey,
    stamps: Stamps<'_>,
) -> Result<Output, serde_saphyr::ser::Error> {
    let Some(shard) = sources.common.catalog.shards.get(service) else { return Ok(Output::new()) };
    let path = format!("serviceexports/{}.{}.yaml", service.namespace, service.name);
    let conditions = conditions(sources, service, shard, stamps.transitions.of(&path));
    let conditions = stamps.stamp(&path, conditions);
    let text = render(&ServiceExport {
        api_version: API,
        kind: "ServiceExport",
        metadata: Metadata::of(service),
        status: ExportStatus { conditions },
    })?;
    Ok(Output::from([(path, text)]))
}

fn render<T: Serialize>(object: &T) -> Result<String, serde_saphyr::ser::Error> {
    Ok(format!("{MARK}{}", serde_saphyr::to_string(object)?))
}

#[cfg(test)]
mod tests;
