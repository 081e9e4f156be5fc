//! Namespaces: their existence is the cluster's interest.

use super::{FieldError, name_of};
use k8s_openapi::api::core::v1 as core_v1;
use sealane_core::name::Namespace;
use std::collections::BTreeMap;
use std::str::FromStr;

/// The label by which a namespace takes no imports: `sealane.dev/import: disabled`.
const IMPORT: &str = "sealane.dev/import";

/// The parts of a namespace that matter.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NamespacePart {
    /// Its labels, for the interest selector.
    pub labels: BTreeMap<String, String>,
}

impl NamespacePart {
    /// Reduces a namespace.
    ///
    /// # Errors
    /// When its name is no namespace name.
    pub fn reduce(object: core_v1::Namespace) -> Result<(Namespace, Self), FieldError> {
        let name =
            Namespace::parse(name_of(&object.metadata)?).map_err(|e| FieldError::new("metadata.name", e))?;
        Ok((name, NamespacePart { labels: object.metadata.labels.unwrap_or_default() }))
    }

    /// Whether services are imported into it, as far as it says itself.
    #[must_use]
    pub fn imports(&self) -> bool {
        self.labels.get(IMPORT).is_none_or(|said| said != "disabled")
    }
}

/// Which namespaces the cluster imports into, by their labels; the empty one selects all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selector(Vec<(String, Option<String>)>);

impl Selector {
    /// Whether a namespace is selected.
    #[must_use]
    pub fn selects(&self, namespace: &NamespacePart) -> bool {
        self.0.iter().all(|(key, value)| match (namespace.labels.get(key), value) {
            (Some(found), Some(wanted)) => found == wanted,
            (found, None) => found.is_some(),
            (None, Some(_)) => false,
        })
    }
}

impl FromStr for Selector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let term = |t: &str| {
            let (key, value) = match t.split_once('=') {
                Some((key, value)) => (key.trim(), Some(value.trim().to_owned())),
                None => (t, None),
            };
            let good = is_key(key) && value.as_deref().is_none_or(|v| v.is_empty() || is_name(v));
            good.then(|| (key.to_owned(), value))
                .ok_or_else(|| format!("{t:?} is not KEY or KEY=VALUE (other selectors are not supported)"))
        };
        text.split(',')
            .map(str::trim)
            .filter(|t| !t.is_empty())
            .map(term)
            .collect::<Result<_, _>>()
            .map(Selector)
    }
}

/// Whether a label can have this key: a name, after a domain and `/` or without. Another one would select nothing, for ever.
fn is_key(key: &str) -> bool {
    let domain = |d: &str| {
        !d.is_empty()
            && d.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.'))
    };
    match key.split_once('/') {
        Some((prefix, name)) => domain(prefix) && is_name(name),
        None => is_name(key),
    }
}

/// Whether it is the name in a label's key, or a value that says something.
fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    let ends = [bytes.first(), bytes.last()].into_iter().flatten().all(u8::is_ascii_alphanumeric);
    let inner = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (1..=63).contains(&bytes.len()) && ends && bytes.iter().all(inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_imports_unless_it_says_that_it_does_not() {
        let labelled =
            |value: &str| NamespacePart { labels: BTreeMap::from([(IMPORT.to_owned(), value.to_owned())]) };
        assert!(NamespacePart::default().imports() && labelled("enabled").imports());
        assert!(!labelled("disabled").imports());
    }

    #[test]
    fn a_selector_that_no_label_could_meet_is_refused() {
        let parse = |text: &str| text.parse::<Selector>();
        for good in ["", "team=a", "team = a, mesh", "example.org/team=a", "a=", "A_b.c=D-9"] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in [
            "a==b",
            "a!=b",
            "!a",
            "a in (b,c)",
            "a notin (b)",
            "=b",
            "/a",
            "a/",
            "a/b/c",
            "-a",
            "a=b c",
            "a=b/c",
            "a=-",
        ] {
            assert!(parse(bad).unwrap_err().contains("is not KEY or KEY=VALUE"), "{bad}");
        }
    }
}
