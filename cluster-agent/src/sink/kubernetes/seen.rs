//! Objects of the API server, reduced to what the sink compares and remembers.
//!
//! What is compared is what we own: the fields that the object's `managedFields` give to our server-side applies. So
//! what others add to our objects is no difference, and what they take from us is one. Of these fields only a digest is
//! kept.

use super::derived;
use crate::desired::{Condition, MANAGED_BY, MANAGER, SLICE_MANAGER, SLICE_SERVICE};
use crate::ours;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use sealane_core::identity::FederationId;
use sealane_core::name::{Namespace, ServiceKey, ServiceName};
use sealane_core::time::Revision;
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

/// The annotation of the revision at which an object was last changed.
pub const REVISION: &str = "sealane.dev/revision";

/// The annotation of the federation whose revision that is. Of others revisions do not compare. What an agent wrote that did
/// not say so yet counts as of this federation.
pub const FEDERATION: &str = "sealane.dev/federation";

/// Who writes a status, where the API server did not record it.
const UNNAMED: &str = "somebody unnamed";

/// The kinds that the sink writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// ServiceImport.
    Import,
    /// Service.
    Service,
    /// EndpointSlice.
    Slice,
    /// ServiceExport, of which the status alone is ours.
    Export,
}

impl Kind {
    /// The name as the API has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Import => "ServiceImport",
            Kind::Service => "Service",
            Kind::Slice => "EndpointSlice",
            Kind::Export => "ServiceExport",
        }
    }
}

/// Which object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: Namespace,
    /// Its name.
    pub name: String,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind.as_str(), self.namespace, self.name)
    }
}

/// A digest of what we own, or want to own, of one part of an object.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest([u8; 32]);

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({:02x}{:02x}..)", self.0[0], self.0[1])
    }
}

impl fmt::LowerHex for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The part of an object that one request writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Everything but the status.
    Main,
    /// The status.
    Status,
}

/// Whose an object is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// We applied it, and it has our label.
    Ours,
    /// We applied it, and somebody took our label away: it is kept right and never deleted.
    Unlabelled,
    /// Others wrote it: these.
    Foreign(Vec<String>),
}

/// An object as it is in the API server.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// Its UID.
    pub uid: String,
    /// Its version, for updates that must not meet another's.
    pub resource_version: String,
    /// The generation of its spec.
    pub generation: Option<i64>,
    /// Whose it is.
    pub owner: Owner,
    /// The revision at which we changed it last.
    pub revision: Revision,
    /// The federation whose revision it is, where it says so.
    pub federation: Option<FederationId>,
    /// The clusterset addresses of an import, the addresses of a Service, those of a slice's endpoints.
    pub addresses: Vec<IpAddr>,
    /// Its conditions.
    pub conditions: Vec<Condition>,
    /// Who writes its status beside us.
    pub status_writers: Vec<String>,
    /// Who writes the rest of it beside us.
    pub writers: Vec<String>,
    /// What we own of it.
    pub main: Digest,
    /// What we own of its status.
    pub status: Digest,
    /// What was applied when it became what it is, where the API server made something else of it.
    pub applied: [Option<Digest>; 2],
}

impl Seen {
    /// Reduces an object: its metadata, and the whole of it.
    #[must_use]
    pub fn of(kind: Kind, meta: &ObjectMeta, object: &Value) -> Self {
        let entries = meta.managed_fields.as_deref().unwrap_or_default();
        let owned = |part| Digest::of(kind, part, &project_all(object, entries, part));
        let texts = |path: &str| object.pointer(path).and_then(Value::as_array).cloned().unwrap_or_default();
        let addresses = match kind {
            Kind::Import => texts("/spec/ips"),
            Kind::Service => texts("/spec/clusterIPs"),
            Kind::Slice => endpoints(object),
            Kind::Export => Vec::new(),
        };
        let annotation = |name| meta.annotations.as_ref().and_then(|a| a.get(name));
        let revision = annotation(REVISION).and_then(|r| r.parse().ok());
        let federation = annotation(FEDERATION).and_then(|id| id.parse().ok());
        Seen {
            uid: meta.uid.clone().unwrap_or_default(),
            resource_version: meta.resource_version.clone().unwrap_or_default(),
            generation: meta.generation,
            owner: owner(kind, meta, entries),
            revision: revision.unwrap_or_default(),
            federation,
            addresses: addresses.iter().filter_map(|a| a.as_str()?.parse().ok()).collect(),
            conditions: texts("/status/conditions")
                .into_iter()
                .filter_map(|c| serde_json::from_value(c).ok())
                .collect(),
            status_writers: status_writers(entries, !texts("/status/conditions").is_empty()),
            writers: writers(entries).filter(|writer| writer != MANAGER).collect(),
            main: owned(Part::Main),
            status: owned(Part::Status),
            applied: [None, None],
        }
    }

    /// Whether it was written by a newer view of this federation than the one of this revision. Who writes has made sure
    /// that the cluster belongs to this federation: what another one left is older, whatever its number.
    #[must_use]
    pub fn is_ahead_of(&self, federation: FederationId, revision: Revision) -> bool {
        self.federation.is_none_or(|theirs| theirs == federation) && self.revision > revision
    }

    /// Whether a part is as it was asked for.
    #[must_use]
    pub fn is(&self, part: Part, wanted: Digest) -> bool {
        let (seen, applied) = match part {
            Part::Main => (self.main, self.applied[0]),
            Part::Status => (self.status, self.applied[1]),
        };
        seen == wanted || applied == Some(wanted)
    }

    /// Takes over what is known of how it came to be what it is, from how it was seen before.
    pub fn remember(&mut self, before: &Seen) {
        if self.uid == before.uid {
            let same = [self.main == before.main, self.status == before.status];
            for (at, same) in same.into_iter().enumerate() {
                if same && self.applied[at].is_none() {
                    self.applied[at] = before.applied[at];
                }
            }
        }
    }

    /// Notes that this is what became of what was asked for.
    pub fn answered(&mut self, part: Part, asked: Digest) {
        self.applied[part as usize] = Some(asked);
    }

    /// Whether another event of the same object that came later is in fact older than this.
    #[must_use]
    pub fn newer_than(&self, other: &Seen) -> bool {
        let number = |seen: &Seen| seen.resource_version.parse::<u64>().ok();
        self.uid == other.uid
            && matches!((number(self), number(other)), (Some(mine), Some(theirs)) if mine > theirs)
    }
}

/// The addresses of a slice's endpoints.
fn endpoints(slice: &Value) -> Vec<Value> {
    let endpoints = slice["endpoints"].as_array().into_iter().flatten();
    endpoints.filter_map(|endpoint| endpoint["addresses"].as_array()).flatten().cloned().collect()
}

/// The service that an object of ours belongs to: by its own name, its owner, or its label, which anybody may take away or
/// change.
#[must_use]
pub fn service_of(kind: Kind, meta: &ObjectMeta) -> Option<ServiceKey> {
    let namespace = Namespace::parse(meta.namespace.as_deref()?).ok()?;
    let service =
        |name: &str| Some(ServiceKey { namespace: namespace.clone(), name: ServiceName::parse(name).ok()? });
    if matches!(kind, Kind::Import | Kind::Export) {
        return service(meta.name.as_deref()?);
    }
    let owner = |kind: Kind| {
        let owners = meta.owner_references.as_deref().unwrap_or_default();
        owners.iter().find(|owner| owner.kind == kind.as_str()).map(|owner| owner.name.as_str())
    };
    let label = meta.labels.as_ref().and_then(|labels| labels.get(SLICE_SERVICE)).and_then(|l| service(l));
    if let Some(import) = owner(Kind::Import) {
        return service(import);
    }
    let Some(derived) = owner(Kind::Service) else { return label };
    // The owner's name is made of the service's, with which the slice's own name begins.
    let name = meta.name.as_deref().unwrap_or_default();
    let beginnings = name.match_indices('-').filter_map(|(at, _)| service(&name[..at]));
    let mut known = label.iter().cloned().chain(beginnings);
    known.find(|service| derived::name(service) == derived).or(label)
}

fn part_of(entry: &ManagedFieldsEntry) -> Part {
    if ours::is_of_status(entry) { Part::Status } else { Part::Main }
}

/// Who writes the main part.
fn writers(entries: &[ManagedFieldsEntry]) -> impl Iterator<Item = String> {
    let main = entries.iter().filter(|e| part_of(e) == Part::Main).filter_map(|e| e.manager.clone());
    main.collect::<BTreeSet<String>>().into_iter()
}

fn owner(kind: Kind, meta: &ObjectMeta, entries: &[ManagedFieldsEntry]) -> Owner {
    let label = if kind == Kind::Slice { SLICE_MANAGER } else { MANAGED_BY };
    if ours::is_ours(meta, label) {
        Owner::Ours
    } else if ours::is_made(meta) {
        Owner::Unlabelled
    } else {
        let writers: BTreeSet<String> = entries.iter().filter_map(|e| e.manager.clone()).collect();
        Owner::Foreign(writers.into_iter().collect())
    }
}

/// Who writes the status beside us. The API server does not record who writes an object none of whose fields anybody
/// owns, which a ServiceExport easily is: then a status with conditions tells that there is somebody.
fn status_writers(entries: &[ManagedFieldsEntry], conditions: bool) -> Vec<String> {
    let owns_status =
        |e: &ManagedFieldsEntry| e.fields_v1.as_ref().is_some_and(|f| f.0.get("f:status").is_some());
    let mut writers: Vec<&ManagedFieldsEntry> = entries.iter().collect();
    writers.retain(|e| part_of(e) == Part::Status || owns_status(e));
    if writers.is_empty() && conditions {
        return vec![UNNAMED.to_owned()];
    }
    let others = writers.iter().filter_map(|e| e.manager.clone()).filter(|m| m != MANAGER);
    others.collect::<BTreeSet<String>>().into_iter().collect()
}

/// What our entries own of an object.
fn project_all(object: &Value, entries: &[ManagedFieldsEntry], part: Part) -> Value {
    let mut owned = Value::Object(Map::new());
    for entry in entries.iter().filter(|e| ours::is_applied(e) && part_of(e) == part) {
        if let Some(Value::Object(fields)) = entry.fields_v1.as_ref().map(|f| &f.0) {
            merge(&mut owned, project(object, fields));
        }
    }
    owned
}

/// Two entries own different fields, but for their parents.
fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (Value::Array(into), Value::Array(from)) => into.extend(from),
        (into, from) => *into = from,
    }
}

/// The fields of a value that a `fieldsV1` set names: `f:name` a field, `k:{..}` an item of a list by its keys,
/// `v:value` an item by itself; nothing below it means all of it.
fn project(value: &Value, fields: &Map<String, Value>) -> Value {
    if fields.is_empty() {
        return value.clone();
    }
    let below = |field: &Value| field.as_object().cloned().unwrap_or_default();
    match value {
        Value::Object(object) => {
            let named = fields.iter().filter_map(|(key, field)| {
                let name = key.strip_prefix("f:")?;
                Some((name.to_owned(), project(object.get(name)?, &below(field))))
            });
            Value::Object(named.collect())
        }
        Value::Array(items) => {
            let found = fields.iter().filter_map(|(key, field)| {
                let item = items.iter().find(|item| names(key, item))?;
                Some(project(item, &below(field)))
            });
            Value::Array(found.collect())
        }
        other => other.clone(),
    }
}

fn names(key: &str, item: &Value) -> bool {
    if let Some(keys) = key.strip_prefix("k:") {
        let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
        return !keys.is_empty() && keys.iter().all(|(k, v)| item.get(k) == Some(v));
    }
    let value = key.strip_prefix("v:").and_then(|v| serde_json::from_str::<Value>(v).ok());
    value.as_ref() == Some(item)
}

impl Digest {
    /// Of what is owned, or of a whole object that is to be applied.
    ///
    /// What names the object, the revision, and the addresses of a Service (the API server gives them and they do not
    /// change) do not count; neither does the order of lists of objects, nor a field that holds nothing.
    #[must_use]
    pub fn of(kind: Kind, part: Part, owned: &Value) -> Self {
        let mut owned = owned.clone();
        if let Value::Object(object) = &mut owned {
            match part {
                Part::Main => object.remove("status"),
                Part::Status => object.remove("metadata"),
            };
            object.remove("apiVersion");
            object.remove("kind");
        }
        strip(&mut owned, "/metadata", &["name", "namespace", "resourceVersion", "uid"]);
        strip(&mut owned, "/metadata/annotations", &[REVISION]);
        if kind == Kind::Service {
            strip(&mut owned, "/spec", &["clusterIP", "clusterIPs"]);
        }
        let normal = normal(owned).unwrap_or(Value::Null);
        Digest(sealane_trust::sha256(normal.to_string().as_bytes()))
    }
}

fn strip(object: &mut Value, parent: &str, names: &[&str]) {
    if let Some(Value::Object(parent)) = object.pointer_mut(parent) {
        for name in names {
            parent.remove(*name);
        }
    }
}

/// The value without what holds nothing, and with lists of objects in an order of their own.
fn normal(value: Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::Object(object) => {
            let kept: Map<String, Value> =
                object.into_iter().filter_map(|(k, v)| Some((k, normal(v)?))).collect();
            (!kept.is_empty()).then_some(Value::Object(kept))
        }
        Value::Array(items) => {
            let mut kept: Vec<Value> = items.into_iter().filter_map(normal).collect();
            if kept.iter().all(Value::is_object) {
                kept.sort_by_cached_key(Value::to_string);
            }
            (!kept.is_empty()).then_some(Value::Array(kept))
        }
        other => Some(other),
    }
}

#[cfg(test)]
mod tests;
