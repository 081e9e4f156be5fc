//! YAML documents as parts of the index. Each document stands alone: a bad one spoils no other.

use super::MAX_DOCUMENTS;
use super::field::field_at;
use crate::index::{
    FieldError, NamespacePart, Node, Part, PartKey, Pod, PodKey, ServiceExport, ServiceExportObject, Slice,
    SliceKey, service,
};
use k8s_openapi::api::core::v1 as core_v1;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use sealane_core::name::{Namespace, ServiceKey, ServiceName};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// What a document turned out to be.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Document {
    /// An object that the agent uses.
    Part(Part),
    /// An object that it does not.
    Ignored {
        /// Its kind.
        kind: String,
    },
    /// Nothing that can be used.
    Bad {
        /// The object, where the document tells.
        key: Option<PartKey>,
        /// The field at fault.
        field: String,
        /// Why.
        reason: String,
    },
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Header {
    api_version: String,
    kind: String,
    metadata: HeaderMeta,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct HeaderMeta {
    name: String,
    namespace: Option<String>,
}

/// The documents of a file with their numbers from 1; empty ones are passed over.
pub(super) fn parse(text: &str) -> Result<Vec<(usize, Document)>, String> {
    let texts = split(text);
    if texts.len() > MAX_DOCUMENTS {
        return Err(format!("holds more than {MAX_DOCUMENTS} documents"));
    }
    let blank = |t: &str| t.lines().all(|l| l.trim().is_empty() || l.trim_start().starts_with('#'));
    let numbered = texts.into_iter().enumerate().filter(|(_, t)| !blank(t));
    Ok(numbered.map(|(at, t)| (at + 1, document(t))).collect())
}

/// Splits at the lines that separate documents.
fn split(text: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let (mut start, mut at) = (0, 0);
    for line in text.split_inclusive('\n') {
        let rest = line.trim_end();
        if rest == "---" || rest.starts_with("--- ") {
            if !(out.is_empty() && text[start..at].trim().is_empty()) {
                out.push(&text[start..at]);
            }
            start = at + 3;
        }
        at += line.len();
    }
    out.push(&text[start..]);
    out
}

fn document(text: &str) -> Document {
    if let Some(part) = in_so_many_words(text) {
        return Document::Part(part);
    }
    let header: Header = match yaml(text) {
        Ok(header) => header,
        Err(e) => return Document::Bad { key: None, field: e.field, reason: e.reason },
    };
    match part(text, &header) {
        Ok(Some(part)) => Document::Part(part),
        Ok(None) => Document::Ignored { kind: format!("{} {}", header.api_version, header.kind) },
        Err(e) => Document::Bad { key: key(&header), field: e.field, reason: e.reason },
    }
}

/// What changes most, EndpointSlices and Pods, is parsed once where a line of the document says its kind: the types refuse
/// a document that is not of their own kind. Anything else, and whatever is wrong with these, is looked at in detail.
fn in_so_many_words(text: &str) -> Option<Part> {
    let line = |wanted: &str| text.lines().any(|line| line.trim_end() == wanted);
    if line("kind: EndpointSlice") && line("apiVersion: discovery.k8s.io/v1") {
        let (key, slice) = Slice::reduce(yaml::<EndpointSlice>(text).ok()?).ok()??;
        return Some(Part::Slice(key, slice));
    }
    if line("kind: Pod") && line("apiVersion: v1") {
        let (key, pod) = Pod::reduce(yaml::<core_v1::Pod>(text).ok()?).ok()?;
        return Some(Part::Pod(key, pod));
    }
    None
}

fn part(text: &str, header: &Header) -> Result<Option<Part>, FieldError> {
    Ok(Some(match (header.api_version.as_str(), header.kind.as_str()) {
        ("", _) => return Err(FieldError::new("apiVersion", "is missing")),
        (_, "") => return Err(FieldError::new("kind", "is missing")),
        ("v1", "Service") => {
            let (key, facts) = service::reduce(yaml::<core_v1::Service>(text)?)?;
            Part::Service(key, facts)
        }
        ("v1", "Pod") => {
            let (key, pod) = Pod::reduce(yaml::<core_v1::Pod>(text)?)?;
            Part::Pod(key, pod)
        }
        ("v1", "Node") => {
            let (name, node) = Node::reduce(yaml::<core_v1::Node>(text)?)?;
            Part::Node(name, node)
        }
        ("v1", "Namespace") => {
            let (name, namespace) = NamespacePart::reduce(yaml::<core_v1::Namespace>(text)?)?;
            Part::Namespace(name, namespace)
        }
        ("discovery.k8s.io/v1", "EndpointSlice") => match Slice::reduce(yaml::<EndpointSlice>(text)?)? {
            Some((key, slice)) => Part::Slice(key, slice),
            None => return Ok(None),
        },
        ("multicluster.x-k8s.io/v1beta1" | "multicluster.x-k8s.io/v1alpha1", "ServiceExport") => {
            let (key, export) = ServiceExport::reduce(yaml::<ServiceExportObject>(text)?)?;
            Part::Export(key, export)
        }
        _ => return Ok(None),
    }))
}

/// Which object a document is about, when its kind is one of ours and its name is one.
fn key(header: &Header) -> Option<PartKey> {
    let namespace = || Namespace::parse(header.metadata.namespace.as_deref().unwrap_or("default")).ok();
    let name = header.metadata.name.clone();
    let service = || {
        Some(ServiceKey { namespace: namespace()?, name: ServiceName::parse(&header.metadata.name).ok()? })
    };
    if name.is_empty() {
        return None;
    }
    match header.kind.as_str() {
        "Service" => service().map(PartKey::Service),
        "ServiceExport" => service().map(PartKey::Export),
        "EndpointSlice" => Some(PartKey::Slice(SliceKey { namespace: namespace()?, name })),
        "Pod" => Some(PartKey::Pod(PodKey { namespace: namespace()?, name })),
        "Node" => Some(PartKey::Node(name)),
        "Namespace" => Namespace::parse(&name).ok().map(PartKey::Namespace),
        _ => None,
    }
}

/// One document as a typed value; an error names the field by where the parser stood.
fn yaml<T: DeserializeOwned>(text: &str) -> Result<T, FieldError> {
    serde_saphyr::from_str_with_options(text, options()).map_err(|error| {
        let error = error.without_snippet();
        let place = error.location().map(|l| (l.line(), l.column()));
        let field = place.map(|(line, _)| field_at(text, line)).unwrap_or_default();
        FieldError { field, reason: error.to_string() }
    })
}

/// Bounds that no honest manifest meets: a file is at most 1 MiB, and aliases may not blow it up.
fn options() -> serde_saphyr::Options {
    let budget = serde_saphyr::budget! {
        max_reader_input_bytes: Some(2 * 1024 * 1024),
        max_events: 400_000,
        max_aliases: 1_000,
        max_anchors: 1_000,
        max_depth: 64,
        max_documents: 2,
        max_nodes: 200_000,
        max_total_scalar_bytes: 4 * 1024 * 1024,
        max_merge_keys: 1_000,
    };
    serde_saphyr::options! { budget: budget, with_snippet: false }
}
