//! The zone: what every name answers, by import. It is brought up to date import by import, and shares the rest.

use super::entry::Entry;
use crate::config::Common;
use crate::map::{self, Shared};
use sealane_core::name::{Namespace, ServiceKey};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

/// What the names under `clusterset.local` answer. A clone is cheap.
#[derive(Debug, Clone)]
pub struct Zone {
    common: Arc<Common>,
    entries: Shared<ServiceKey, Entry>,
    nameservers: Arc<[IpAddr]>,
}

impl Zone {
    /// A zone made anew.
    #[must_use]
    pub fn new(common: Arc<Common>, nameservers: &[IpAddr]) -> Self {
        let empty = Zone { common: Arc::default(), entries: Shared::new(), nameservers: nameservers.into() };
        empty.next(common)
    }

    /// The zone of what is now; what does not differ is shared with this one.
    #[must_use]
    pub fn next(&self, common: Arc<Common>) -> Self {
        let mut entries = self.entries.clone();
        for service in self.changed(&common) {
            map::set(&mut entries, &service, entry(&common, &service));
        }
        Zone { common, entries, nameservers: self.nameservers.clone() }
    }

    fn changed(&self, now: &Common) -> BTreeSet<ServiceKey> {
        let mut changed: BTreeSet<ServiceKey> =
            map::changed(&self.common.outbound, &now.outbound).cloned().collect();
        if self.common.catalog.interest != now.catalog.interest {
            // A namespace that came or went may hold any of them.
            changed.extend(now.outbound.keys().cloned());
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
        u32::try_from(self.common.revision.index & u64::from(u32::MAX)).unwrap_or_default()
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

fn entry(common: &Common, service: &ServiceKey) -> Option<Entry> {
    // As with ServiceImports: nothing exists in a namespace that is not here.
    let here = common.catalog.interest.contains(&service.namespace);
    Entry::of(common.outbound.get(service).filter(|_| here)?)
}
