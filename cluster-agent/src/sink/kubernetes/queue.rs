//! The services that are to be worked on, those that wait longest first. In any other order a service could wait for ever
//! where more changes than the API server takes.

use sealane_core::name::ServiceKey;
use std::collections::BTreeMap;

/// A queue in which each service stands once, at the place that it took first.
#[derive(Debug, Default)]
pub(super) struct Queue {
    places: BTreeMap<ServiceKey, u64>,
    order: BTreeMap<u64, ServiceKey>,
    next: u64,
}

impl Queue {
    /// At the end, where it does not stand in it yet.
    pub(super) fn insert(&mut self, service: ServiceKey) {
        if !self.places.contains_key(&service) {
            self.order.insert(self.next, service.clone());
            self.places.insert(service, self.next);
            self.next += 1;
        }
    }

    /// Leaves the queue.
    pub(super) fn remove(&mut self, service: &ServiceKey) {
        if let Some(place) = self.places.remove(service) {
            self.order.remove(&place);
        }
    }

    /// Whether it stands in the queue.
    pub(super) fn contains(&self, service: &ServiceKey) -> bool {
        self.places.contains_key(service)
    }

    /// All of them, the first in front.
    pub(super) fn iter(&self) -> impl Iterator<Item = &ServiceKey> {
        self.order.values()
    }
}

impl Extend<ServiceKey> for Queue {
    fn extend<T: IntoIterator<Item = ServiceKey>>(&mut self, services: T) {
        services.into_iter().for_each(|service| self.insert(service));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str) -> ServiceKey {
        ServiceKey::parse(&format!("shop/{name}")).unwrap()
    }

    #[test]
    fn who_changes_all_the_time_does_not_get_before_who_waits() {
        let mut queue = Queue::default();
        queue.extend(["a", "z", "a"].map(service));
        let mut served = Vec::new();
        for _ in 0..4 {
            let first = queue.iter().next().unwrap().clone();
            queue.remove(&first);
            served.push(first);
            queue.insert(service("a"));
        }
        assert_eq!(served, ["a", "z", "a", "a"].map(service));
        assert!(queue.contains(&service("a")) && !queue.contains(&service("z")));
        assert_eq!(queue.iter().count(), 1);
        queue.remove(&service("a"));
        assert_eq!((queue.order.len(), queue.places.len()), (0, 0));
    }
}
