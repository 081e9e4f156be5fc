//! What the sink counts. Labels are from fixed lists; no object is named.

use super::effect::Target;
use super::seen::Kind;
use super::tally::{Standing, Standings};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

/// What the sink counts.
#[derive(Debug, Default)]
pub struct SinkMetrics {
    conditions: Family<Standing, Gauge>,
    contested: Family<OfKind, Gauge>,
    repairs: Family<OfKind, Counter>,
    refused: Family<Refused, Counter>,
    now: Mutex<Now>,
}

/// What is so now.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Now {
    pub(super) conditions: Standings,
    pub(super) contested: BTreeMap<Kind, usize>,
    pub(super) unreadable: BTreeSet<Kind>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfKind {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refused {
    kind: &'static str,
    reason: &'static str,
}

impl SinkMetrics {
    /// Takes part in what is shown.
    pub fn register(&self, registry: &mut Registry) {
        let conditions = "Conditions of our imports and of exports, by where they stand";
        registry.register("conditions", conditions, self.conditions.clone());
        let contested = "Objects that somebody else keeps changing";
        registry.register("contested_objects", contested, self.contested.clone());
        let repairs = "Writes that put back what somebody else had changed or removed";
        registry.register("repairs", repairs, self.repairs.clone());
        let refused = "Writes that the API server refused, or did not answer";
        registry.register("writes_refused", refused, self.refused.clone());
    }

    /// A write was not taken.
    pub(super) fn refuse(&self, kind: Kind, reason: &'static str) {
        self.refused.get_or_create(&Refused { kind: kind.as_str(), reason }).inc();
    }

    /// Something was put back.
    pub(super) fn repair(&self, (key, _): &Target) {
        self.repairs.get_or_create(&OfKind { kind: key.kind.as_str() }).inc();
    }

    /// This is so now.
    pub(super) fn tell(&self, now: Now) {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    /// Brings the gauges up to date. Gives the kinds that can not be read.
    pub fn follow(&self) -> BTreeSet<&'static str> {
        let now = self.now.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.conditions.clear();
        for (standing, count) in &now.conditions {
            self.conditions.get_or_create(standing).set(number(*count));
        }
        self.contested.clear();
        for (kind, count) in &now.contested {
            self.contested.get_or_create(&OfKind { kind: kind.as_str() }).set(number(*count));
        }
        now.unreadable.iter().map(|kind| kind.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::seen::{ObjectKey, Part};
    use super::*;
    use prometheus_client::encoding::text::encode;

    #[test]
    fn what_is_shown_is_what_is_so_now_and_what_was_counted() {
        let (metrics, mut registry) = (SinkMetrics::default(), Registry::default());
        metrics.register(&mut registry);
        let shown = || {
            let unreadable = metrics.follow();
            let mut text = String::new();
            encode(&mut text, &registry).unwrap();
            let samples = text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned);
            (samples.collect::<Vec<String>>(), unreadable)
        };
        assert_eq!(shown(), (vec![], [].into()));
        let condition = crate::desired::Condition {
            kind: "Ready".to_owned(),
            status: "False".to_owned(),
            observed_generation: None,
            last_transition_time: String::new(),
            reason: "Failed".to_owned(),
            message: String::new(),
        };
        metrics.tell(Now {
            conditions: Standing::of(Kind::Import, &condition).map(|standing| (standing, 7)).collect(),
            contested: [(Kind::Slice, 1)].into(),
            unreadable: [Kind::Export].into(),
        });
        metrics.refuse(Kind::Slice, "Forbidden");
        let key = ObjectKey { kind: Kind::Slice, namespace: "shop".parse().unwrap(), name: "a".to_owned() };
        metrics.repair(&(key, Part::Main));
        let counted = [
            "repairs_total{kind=\"EndpointSlice\"} 1",
            "writes_refused_total{kind=\"EndpointSlice\",reason=\"Forbidden\"} 1",
        ];
        let now = [
            "conditions{kind=\"ServiceImport\",type=\"Ready\",status=\"False\",reason=\"Failed\"} 7",
            "contested_objects{kind=\"EndpointSlice\"} 1",
        ];
        assert_eq!(
            shown(),
            ([now, counted].concat().iter().map(|s| (*s).to_owned()).collect(), ["ServiceExport"].into())
        );
        metrics.tell(Now::default());
        assert_eq!(shown(), (counted.map(str::to_owned).to_vec(), [].into()));
    }
}
