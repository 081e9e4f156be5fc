//! How many conditions stand where, counted as objects come and go. Labels are from fixed lists: nobody who may write an
//! object can make new ones.

use super::seen::{Kind, ObjectKey, Owner, Seen};
use crate::desired::Condition;
use prometheus_client::encoding::EncodeLabelSet;
use std::collections::BTreeMap;

/// What is not in a list.
const OTHER: &str = "Other";
const TYPES: [&str; 3] = ["Valid", "Ready", "Conflict"];
const STATUSES: [&str; 3] = ["True", "False", "Unknown"];
const REASONS: [&str; 21] = [
    "Valid",
    "NoService",
    "InvalidServiceType",
    "Exported",
    "Ready",
    "Pending",
    "Failed",
    "IPFamilyNotSupported",
    "NoGateway",
    "NoPort",
    "ClusterWithdrawn",
    "NoConflicts",
    "PortConflict",
    "TypeConflict",
    "SessionAffinityConflict",
    "SessionAffinityConfigConflict",
    "InternalTrafficPolicyConflict",
    "TrafficDistributionConflict",
    "LabelsConflict",
    "AnnotationsConflict",
    "IPFamilyConflict",
];

/// Where a condition stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
pub(super) struct Standing {
    kind: &'static str,
    r#type: &'static str,
    status: &'static str,
    reason: &'static str,
}

fn listed(text: &str, list: &[&'static str]) -> &'static str {
    list.iter().find(|known| **known == text).copied().unwrap_or(OTHER)
}

impl Standing {
    /// Where a condition of an object of this kind stands: once for each of its reasons.
    pub(super) fn of(kind: Kind, condition: &Condition) -> impl Iterator<Item = Standing> {
        let (r#type, status) = (listed(&condition.kind, &TYPES), listed(&condition.status, &STATUSES));
        // There are no more reasons than a list has.
        let reasons = condition.reason.split(',').take(REASONS.len());
        reasons.map(move |reason| {
            let reason = listed(reason, &REASONS);
            Standing { kind: kind.as_str(), r#type, status, reason }
        })
    }
}

/// How many conditions stand where.
pub(super) type Standings = BTreeMap<Standing, usize>;

/// Those of an object that is ours, or of an export, come (`true`) or go.
pub(super) fn count(standings: &mut Standings, key: &ObjectKey, seen: &Seen, comes: bool) {
    let theirs = key.kind != Kind::Export && matches!(seen.owner, Owner::Foreign(_));
    if theirs {
        return;
    }
    for standing in seen.conditions.iter().flat_map(|condition| Standing::of(key.kind, condition)) {
        let count = standings.entry(standing.clone()).or_default();
        *count = if comes { *count + 1 } else { count.saturating_sub(1) };
        if *count == 0 {
            standings.remove(&standing);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sealane_core::reach::Unreached;

    #[test]
    fn labels_are_from_lists_and_several_reasons_count_each() {
        let condition = |kind: &str, status: &str, reason: &str| Condition {
            kind: kind.to_owned(),
            status: status.to_owned(),
            observed_generation: None,
            last_transition_time: String::new(),
            reason: reason.to_owned(),
            message: String::new(),
        };
        let labels = |condition: &Condition| -> Vec<[&'static str; 4]> {
            Standing::of(Kind::Export, condition).map(|s| [s.kind, s.r#type, s.status, s.reason]).collect()
        };
        assert_eq!(
            labels(&condition("Conflict", "True", "PortConflict,TypeConflict")),
            [
                ["ServiceExport", "Conflict", "True", "PortConflict"],
                ["ServiceExport", "Conflict", "True", "TypeConflict"],
            ]
        );
        let unreached = [Unreached::NoGateway, Unreached::NoPort, Unreached::ClusterWithdrawn];
        for reason in unreached.map(Unreached::reason) {
            assert_eq!(listed(reason, &REASONS), reason);
        }
        assert_eq!(labels(&condition("Mine", "Maybe", "x")), [["ServiceExport", "Other", "Other", "Other"]]);
    }
}
