//! What the API server holds of the sink's objects, by the service that they are about.

use super::seen::{Kind, ObjectKey, Seen};
use super::tally::{self, Standings};
use sealane_core::name::{Namespace, ServiceKey};
use std::collections::{BTreeMap, BTreeSet};

/// Every object that was seen, by service.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Observed {
    scenes: BTreeMap<ServiceKey, Scene>,
    service_of: BTreeMap<ObjectKey, ServiceKey>,
    exports: usize,
    standings: Standings,
}

/// The objects about one service.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Scene {
    /// Its objects.
    pub objects: BTreeMap<ObjectKey, Seen>,
}

impl Scene {
    /// The ServiceImport.
    #[must_use]
    pub fn import(&self) -> Option<&Seen> {
        self.first(Kind::Import)
    }

    /// The ServiceExport.
    #[must_use]
    pub fn export(&self) -> Option<&Seen> {
        self.first(Kind::Export)
    }

    /// The objects of a kind.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = (&ObjectKey, &Seen)> {
        self.objects.iter().filter(move |(key, _)| key.kind == kind)
    }

    fn first(&self, kind: Kind) -> Option<&Seen> {
        self.of(kind).next().map(|(_, seen)| seen)
    }
}

impl Observed {
    /// The objects about a service.
    #[must_use]
    pub fn scene(&self, service: &ServiceKey) -> Scene {
        self.scenes.get(service).cloned().unwrap_or_default()
    }

    /// The services that objects were seen of.
    pub fn services(&self) -> impl Iterator<Item = &ServiceKey> {
        self.scenes.keys()
    }

    /// Every object.
    pub fn objects(&self) -> impl Iterator<Item = (&ObjectKey, &Seen)> {
        self.scenes.values().flat_map(|scene| &scene.objects)
    }

    /// How many objects are there, but for ServiceExports.
    #[must_use]
    pub fn len(&self) -> usize {
        self.service_of.len() - self.exports
    }

    /// How many conditions stand where.
    pub(super) fn standings(&self) -> &Standings {
        &self.standings
    }

    /// Whether nothing was seen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.service_of.is_empty()
    }

    /// Takes in how an object is now. Gives the services that this is about: none when it is older than what is known
    /// (an answer to a request is often ahead of the watch) or the same.
    pub fn put(&mut self, key: ObjectKey, service: ServiceKey, mut seen: Seen) -> BTreeSet<ServiceKey> {
        let mut touched = BTreeSet::new();
        if let Some(before) = self.get(&key) {
            if before.newer_than(&seen) {
                return touched;
            }
            seen.remember(before);
            if *before == seen && self.service_of.get(&key) == Some(&service) {
                return touched;
            }
        }
        touched.extend(self.remove(&key).filter(|former| *former != service));
        self.exports += usize::from(key.kind == Kind::Export);
        tally::count(&mut self.standings, &key, &seen, true);
        self.service_of.insert(key.clone(), service.clone());
        self.scenes.entry(service.clone()).or_default().objects.insert(key, seen);
        touched.insert(service);
        touched
    }

    /// The ServiceImport of a service.
    #[must_use]
    pub fn import(&self, service: &ServiceKey) -> Option<&Seen> {
        self.scenes.get(service)?.import()
    }

    /// The ServiceExport of a service.
    #[must_use]
    pub fn export(&self, service: &ServiceKey) -> Option<&Seen> {
        self.scenes.get(service)?.export()
    }

    /// An object.
    #[must_use]
    pub fn get(&self, key: &ObjectKey) -> Option<&Seen> {
        self.scenes.get(self.service_of.get(key)?)?.objects.get(key)
    }

    /// An object is gone. Gives the service that it was about.
    pub fn remove(&mut self, key: &ObjectKey) -> Option<ServiceKey> {
        let service = self.service_of.remove(key)?;
        self.exports -= usize::from(key.kind == Kind::Export);
        if let Some(scene) = self.scenes.get_mut(&service) {
            if let Some(seen) = scene.objects.remove(key) {
                tally::count(&mut self.standings, key, &seen, false);
            }
            if scene.objects.is_empty() {
                self.scenes.remove(&service);
            }
        }
        Some(service)
    }

    /// A kind was listed whole: what was not listed is gone. Gives the services that lost something.
    pub fn retain(&mut self, kind: Kind, listed: &BTreeSet<(Namespace, String)>) -> BTreeSet<ServiceKey> {
        let gone = self
            .service_of
            .keys()
            .filter(|key| key.kind == kind && !listed.contains(&(key.namespace.clone(), key.name.clone())));
        let gone: Vec<ObjectKey> = gone.cloned().collect();
        gone.iter().filter_map(|key| self.remove(key)).collect()
    }
}
