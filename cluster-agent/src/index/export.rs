//! ServiceExports of `multicluster.x-k8s.io`, v1beta1 and v1alpha1 (their schemas are the same).

use super::{FieldError, name_of, namespace_of};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use sealane_core::name::{ClusterName, ServiceKey, ServiceName};
use sealane_core::time::Millis;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// The annotation that names the clusters allowed to import, comma-separated; without it every cluster may.
pub const IMPORTERS: &str = "sealane.dev/importers";

/// The clusters that may import; `None` for every cluster.
pub type Importers = Option<BTreeSet<ClusterName>>;

/// A ServiceExport as it is written; its status is ours and is not read.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceExportObject {
    /// Its metadata.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// Its spec, which may be missing.
    #[serde(default)]
    pub spec: Option<ServiceExportSpec>,
}

/// The spec of a ServiceExport.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceExportSpec {
    /// Labels that importers see.
    #[serde(default)]
    pub exported_labels: Option<BTreeMap<String, String>>,
    /// Annotations that importers see.
    #[serde(default)]
    pub exported_annotations: Option<BTreeMap<String, String>>,
}

/// The parts of a ServiceExport that matter.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServiceExport {
    /// Labels that importers see.
    pub labels: BTreeMap<String, String>,
    /// Annotations that importers see.
    pub annotations: BTreeMap<String, String>,
    /// Who may import it.
    pub importers: Importers,
    /// Its creation time, 0 where it states none.
    pub created: Millis,
    /// Its generation, where it states one.
    pub generation: Option<i64>,
}

impl ServiceExport {
    /// Reduces a ServiceExport.
    ///
    /// # Errors
    /// When a field breaks a rule of the API or of the federation's names.
    pub fn reduce(object: ServiceExportObject) -> Result<(ServiceKey, Self), FieldError> {
        let meta = object.metadata;
        let name = ServiceName::parse(name_of(&meta)?).map_err(|e| FieldError::new("metadata.name", e))?;
        let key = ServiceKey { namespace: namespace_of(&meta)?, name };
        let spec = object.spec.unwrap_or_default();
        let importers = meta.annotations.as_ref().and_then(|a| a.get(IMPORTERS));
        let created = meta.creation_timestamp.map_or(0, |t| t.0.as_millisecond());
        let export = ServiceExport {
            labels: spec.exported_labels.unwrap_or_default(),
            annotations: spec.exported_annotations.unwrap_or_default(),
            importers: importers.map(|text| clusters(text)).transpose()?,
            created: Millis(u64::try_from(created).unwrap_or(0)),
            generation: meta.generation,
        };
        Ok((key, export))
    }
}

fn clusters(text: &str) -> Result<BTreeSet<ClusterName>, FieldError> {
    let names = text.split(',').map(str::trim).filter(|n| !n.is_empty()).map(ClusterName::parse);
    names
        .collect::<Result<_, _>>()
        .map_err(|e| FieldError::new(format!("metadata.annotations[{IMPORTERS}]"), e))
}
