//! What the output directory should hold: ServiceImports, EndpointSlices and the conditions of ServiceExports, as
//! files. Pure: the view, the catalog and what was written before go in, file names and texts come out.

mod condition;
mod exports;
mod imports;
mod slices;

pub use condition::{Condition, Transitions};

use crate::config::Common;
use crate::map;
use imbl::OrdMap;
use sealane_core::command::Refusal;
use sealane_core::name::ServiceKey;
use sealane_core::time::Millis;
use sealane_core::view::{ViewItem, ViewKey};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The first line of every file that is ours; what does not begin with it is somebody else's.
pub const MARK: &str = "# Written by sealane-agent. Changes are lost.\n";
/// The manager's name in labels.
pub const MANAGER: &str = "sealane-agent";
/// The folders, one for each kind.
pub const FOLDERS: [&str; 3] = ["serviceimports", "endpointslices", "serviceexports"];

/// What the output is made of.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// What proxies run by: the imports with their addresses and avoided lanes, and the catalog.
    pub common: Arc<Common>,
    /// The view, of which the standing of exports is shown.
    pub exports: OrdMap<ViewKey, ViewItem>,
    /// Exports that the store refused.
    pub refused: Arc<BTreeMap<ServiceKey, Refusal>>,
}

/// What stamps conditions.
#[derive(Debug, Clone, Copy)]
struct Stamps<'a> {
    /// Since when conditions are what they are.
    transitions: &'a Transitions,
    /// The time of conditions that change now.
    now: Millis,
}

/// Files by their path in the output directory.
pub type Output = BTreeMap<String, String>;

/// An object of ours, and so the files that are made of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Object {
    Import(ServiceKey),
    Export(ServiceKey),
}

/// The whole output, brought up to date object by object.
#[derive(Debug, Default)]
pub struct Desired {
    sources: Sources,
    output: Output,
    /// The paths of each object that has any.
    paths: BTreeMap<Object, Vec<String>>,
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
        for object in self.changed(&sources) {
            let files = match &object {
                Object::Import(service) => import(&sources, service, stamps)?,
                Object::Export(service) => export(&sources, service, stamps)?,
            };
            made.push((object, files));
        }
        let mut touched = BTreeSet::new();
        for (object, files) in made {
            for path in self.paths.remove(&object).unwrap_or_default() {
                self.output.remove(&path);
                touched.insert(path);
            }
            touched.extend(files.keys().cloned());
            if !files.is_empty() {
                self.paths.insert(object, files.keys().cloned().collect());
            }
            self.output.extend(files);
        }
        self.sources = sources;
        Ok(touched)
    }

    fn changed(&self, now: &Sources) -> BTreeSet<Object> {
        let before = &self.sources;
        let imports = map::changed(&before.common.outbound, &now.common.outbound);
        let mut changed: BTreeSet<Object> = imports.cloned().map(Object::Import).collect();
        if before.common.catalog.interest != now.common.catalog.interest {
            // A namespace that came or went may hold any of them.
            changed.extend(now.common.outbound.keys().cloned().map(Object::Import));
        }
        let shards = map::changed(&before.common.catalog.shards, &now.common.catalog.shards);
        changed.extend(shards.cloned().map(Object::Export));
        let standings = map::changed(&before.exports, &now.exports).filter_map(|key| match key {
            ViewKey::Export(service) => Some(service.clone()),
            _ => None,
        });
        changed.extend(standings.map(Object::Export));
        let refused = before.refused.keys().chain(now.refused.keys());
        let refused = refused.filter(|service| before.refused.get(*service) != now.refused.get(*service));
        changed.extend(refused.cloned().map(Object::Export));
        changed
    }
}

fn import(
    sources: &Sources,
    service: &ServiceKey,
    stamps: Stamps<'_>,
) -> Result<Output, serde_saphyr::ser::Error> {
    let mut files = Output::new();
    // A namespace that does not exist here is not ours to make.
    let here = sources.common.catalog.interest.contains(&service.namespace);
    let Some(outbound) = sources.common.outbound.get(service).filter(|_| here) else { return Ok(files) };
    let path = format!("serviceimports/{}.{}.yaml", service.namespace, service.name);
    let import = imports::service_import(outbound, &path, stamps);
    files.insert(path, render(&import)?);
    for slice in slices::slices(&outbound.import) {
        let name = slice.metadata.name.clone().unwrap_or_default();
        files.insert(format!("endpointslices/{}.{name}.yaml", service.namespace), render(&slice)?);
    }
    Ok(files)
}

fn export(
    sources: &Sources,
    service: &ServiceKey,
    stamps: Stamps<'_>,
) -> Result<Output, serde_saphyr::ser::Error> {
    let Some(shard) = sources.common.catalog.shards.get(service) else { return Ok(Output::new()) };
    let path = format!("serviceexports/{}.{}.yaml", service.namespace, service.name);
    let export = exports::service_export(sources, service, shard, &path, stamps);
    let text = render(&export)?;
    Ok(Output::from([(path, text)]))
}

fn render<T: Serialize>(object: &T) -> Result<String, serde_saphyr::ser::Error> {
    Ok(format!("{MARK}{}", serde_saphyr::to_string(object)?))
}

#[cfg(test)]
mod tests;
