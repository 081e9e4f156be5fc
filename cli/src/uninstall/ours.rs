//! Whether an object is ours.

use kube::core::ObjectMeta;
use sealane_agent::desired::{MANAGED_BY, MANAGER};

/// The labels of the agents and their pods, as the chart gives them.
pub(super) const AGENTS: &str = "app.kubernetes.io/name=sealane,app.kubernetes.io/component=agent";

/// What says that an object which has its name from us is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// Our label, and that we wrote it.
    Written,
    /// Our label.
    Labelled,
    /// The labels that the chart gives the agents.
    Chart,
}

impl Proof {
    pub(super) fn holds(self, meta: &ObjectMeta) -> bool {
        match self {
            Proof::Written => is_ours(meta, MANAGED_BY),
            Proof::Labelled => bears(meta, MANAGED_BY, MANAGER),
            Proof::Chart => AGENTS
                .split(',')
                .filter_map(|label| label.split_once('='))
                .all(|(label, value)| bears(meta, label, value)),
        }
    }

    pub(super) fn missing(self) -> &'static str {
        match self {
            Proof::Written => "it has our name and is not labelled as ours, or we did not write it",
            Proof::Labelled => "it has our name and is not labelled as ours",
            Proof::Chart => "it has our name, and not the labels of the chart",
        }
    }
}

fn bears(meta: &ObjectMeta, label: &str, value: &str) -> bool {
    meta.labels.as_ref().and_then(|labels| labels.get(label)).is_some_and(|found| found == value)
}

/// Whether an object is ours by its label and by who wrote it.
pub(super) fn is_ours(meta: &ObjectMeta, label: &str) -> bool {
    bears(meta, label, MANAGER) && has_our_entry(meta)
}

pub(super) fn has_our_entry(meta: &ObjectMeta) -> bool {
    meta.managed_fields.iter().flatten().any(|entry| entry.manager.as_deref() == Some(MANAGER))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;

    #[test]
    fn a_label_alone_or_an_entry_alone_makes_nothing_ours() {
        let meta = |label: &str, manager: &str| ObjectMeta {
            labels: Some([(MANAGED_BY.to_owned(), label.to_owned())].into()),
            managed_fields: Some(vec![ManagedFieldsEntry {
                manager: Some(manager.to_owned()),
                ..ManagedFieldsEntry::default()
            }]),
            ..ObjectMeta::default()
        };
        assert!(is_ours(&meta(MANAGER, MANAGER), MANAGED_BY));
        assert!(!is_ours(&meta(MANAGER, "another"), MANAGED_BY));
        assert!(!is_ours(&meta("another", MANAGER), MANAGED_BY));
        assert!(!is_ours(&ObjectMeta::default(), MANAGED_BY));
        let holds =
            |meta: &ObjectMeta| [Proof::Written, Proof::Labelled, Proof::Chart].map(|p| p.holds(meta));
        assert_eq!(holds(&meta(MANAGER, MANAGER)), [true, true, false]);
        assert_eq!(holds(&meta(MANAGER, "another")), [false, true, false]);
        assert_eq!(holds(&meta("another", MANAGER)), [false, false, false]);
        let labels = [("app.kubernetes.io/name", "sealane"), ("app.kubernetes.io/component", "agent")];
        let chart = |count: usize| ObjectMeta {
            labels: Some(labels[..count].iter().map(|(l, v)| ((*l).to_owned(), (*v).to_owned())).collect()),
            ..ObjectMeta::default()
        };
        assert_eq!([chart(2), chart(1), chart(0)].map(|m| Proof::Chart.holds(&m)), [true, false, false]);
    }
}
