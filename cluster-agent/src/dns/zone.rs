//! The zone: what every name answers, by import. It is brought up to date import by import, and shares the rest.

use super::Assignments;
use super::entry::{Assigned, Entry};
use crate::config::Common;
use crate::map::{self, Shared};
use sealane_core::name::{Namespace, ServiceKey};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

/// What a zone is made of.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The imports, and the namespaces that exist here.
    pub common: Arc<Common>,
    /// The addresses of imports, where they come from elsewhere than from `common`.
    pub assigned: Option<Assignments>,
}

/// What the names under `clusterset.local` answer. A clone is cheap.
#[derive(Debug, Clone)]
pub struct Zone {
    sources: Sources,
    entries: Shared<ServiceKey, Entry>,
    nameservers: Arc<[IpAddr]>,
}

impl Zone {
    /// A zone made anew.
    #[must_use]
    pub fn new(sources: Sources, nameservers: &[IpAddr]) -> Self {
        let empty =
            Zone { sources: Sources::default(), entries: Shared::new(), nameservers: nameservers.into() };
        empty.next(sources)
    }

    /// The zone of other sources; what does not differ is shared with this one.
    #[must_use]
    pub fn next(&self, sources: Sources) -> Self {
        let mut entries = self.entries.clone();
        for service in self.changed(&sources) {
            map::set(&mut entries, &service, entry(&sources, &service));
        }
        Zone { sources, entries, nameservers: self.nameservers.clone() }
    }

    fn changed(&self, now: &Sources) -> BTreeSet<ServiceKey> {
        let before = &self.sources;
        let mut changed: BTreeSet<ServiceKey> =
            map::changed(&before.common.outbound, &now.common.outbound).cloned().collect();
        let namespaces = before.common.catalog.interest != now.common.catalog.interest;
        if namespaces || before.assigned.is_some() != now.assigned.is_some() {
            // A namespace that came or went may hold any of them.
            changed.extend(now.common.outbound.keys().cloned());
        }
        if let (Some(before), Some(now)) = (&before.assigned, &now.assigned) {
            changed.extend(map::changed(before, now).cloned());
        }
        changed
    }

    /// What the names of an import answer; `None` when they do not exist.
    #[must_use]
    pub fn entry(&self, service: &ServiceKey) -> Option<&Arc<Entry>> {
        self.entries.get(service)
    }

    /// Whether any import of a namespace has names.
    #[must_use]
    pub fn has(&self, namespace: &Namespace) -> bool {
        let first = self.entries.range(ServiceKey::first_of(namespace)..).next();
        first.is_some_and(|(service, _)| service.namespace == *namespace)
    }

    /// The addresses of the name servers themselves.
    #[must_use]
    pub fn nameservers(&self) -> &[IpAddr] {
        &self.nameservers
    }

    /// The number of this version of the zone: what the revision of the view fits into.
    #[must_use]
    pub fn serial(&self) -> u32 {
        // Serials wrap around (RFC 1982), so the low half is what there is to say.
        u32::try_from(self.sources.common.revision.index & u64::from(u32::MAX)).unwrap_or_default()
    }

    /// How many imports have names.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no import has names.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

fn entry(sources: &Sources, service: &ServiceKey) -> Option<Entry> {
    // As with ServiceImports: nothing exists in a namespace that is not here.
    let here = sources.common.catalog.interest.contains(&service.namespace);
    let outbound = sources.common.outbound.get(service).filter(|_| here)?;
    let Some(assigned) = &sources.assigned else { return Entry::of(outbound, None) };
    let none = Assigned::default();
    Entry::of(outbound, Some(assigned.get(service).map_or(&none, |assigned| assigned)))
}
