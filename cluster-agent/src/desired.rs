//! What the output directory should hold: ServiceImports, EndpointSlices and the conditions of ServiceExports, as
//! files. Pure: the view, the catalog and what was written before go in, file names and texts come out.

mod condition;
mod exports;
mod imports;
mod slices;

pub use condition::{Condition, Transitions};

use crate::catalog::Catalog;
use crate::config::Common;
use crate::view::Held;
use sealane_core::command::Refusal;
use sealane_core::name::ServiceKey;
use sealane_core::time::Millis;
use serde::Serialize;
use std::collections::BTreeMap;

/// The first line of every file that is ours; what does not begin with it is somebody else's.
pub const MARK: &str = "# Written by sealane-agent. Changes are lost.\n";
/// The manager's name in labels.
pub const MANAGER: &str = "sealane-agent";
/// The folders, one for each kind.
pub const FOLDERS: [&str; 3] = ["serviceimports", "endpointslices", "serviceexports"];

/// What the output is made of.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// The view.
    pub held: &'a Held,
    /// What proxies run by: the imports with their addresses and avoided lanes.
    pub common: &'a Common,
    /// The catalog.
    pub catalog: &'a Catalog,
    /// Exports that the store refused.
    pub refused: &'a BTreeMap<ServiceKey, Refusal>,
    /// Since when conditions are what they are.
    pub transitions: &'a Transitions,
    /// The time of conditions that change now.
    pub now: Millis,
}

/// Files by their path in the output directory.
pub type Output = BTreeMap<String, String>;

/// The whole output.
///
/// # Errors
/// When an object can not be written as YAML, which is a defect.
pub fn desired(inputs: &Inputs<'_>) -> Result<Output, serde_saphyr::ser::Error> {
    let mut out = Output::new();
    for outbound in inputs.common.outbound.values() {
        let key = &outbound.import.service;
        // A namespace that does not exist here is not ours to make.
        if !inputs.catalog.interest.contains(&key.namespace) {
            continue;
        }
        let path = format!("serviceimports/{}.{}.yaml", key.namespace, key.name);
        let import = imports::service_import(inputs, outbound, &path);
        out.insert(path, render(&import)?);
        for slice in slices::slices(&outbound.import) {
            let name = slice.metadata.name.clone().unwrap_or_default();
            out.insert(format!("endpointslices/{}.{name}.yaml", key.namespace), render(&slice)?);
        }
    }
    for (service, shard) in &inputs.catalog.shards {
        let path = format!("serviceexports/{}.{}.yaml", service.namespace, service.name);
        let export = exports::service_export(inputs, service, shard, &path);
        out.insert(path, render(&export)?);
    }
    Ok(out)
}

fn render<T: Serialize>(object: &T) -> Result<String, serde_saphyr::ser::Error> {
    Ok(format!("{MARK}{}", serde_saphyr::to_string(object)?))
}

#[cfg(test)]
mod tests;
