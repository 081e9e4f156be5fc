//! What says that an object which has its name from us is ours.

use kube::core::ObjectMeta;
use sealane_agent::desired::{MANAGED_BY, MANAGER};
use sealane_agent::ours::{bears, is_ours};

/// The labels of the agents and their pods, as the chart gives them.
pub(super) const AGENTS: &str = "app.kubernetes.io/name=sealane,app.kubernetes.io/component=agent";

/// What must be so of it.
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

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;

    #[test]
    fn each_proof_asks_for_what_it_says() {
        let meta = |label: &str, manager: &str| ObjectMeta {
            labels: Some([(MANAGED_BY.to_owned(), label.to_owned())].into()),
            managed_fields: Some(vec![ManagedFieldsEntry {
                manager: Some(manager.to_owned()),
                operation: Some("Apply".to_owned()),
                ..ManagedFieldsEntry::default()
            }]),
            ..ObjectMeta::default()
        };
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
