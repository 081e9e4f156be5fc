//! Which generation of each export the view is about. What it says of an export follows from what the store had of it: only
//! after the store acknowledged what is exported now, and the view reached that, it is about this generation.

use crate::catalog::Shard;
use crate::map::{self, Shared};
use imbl::OrdMap;
use sealane_core::name::ServiceKey;
use sealane_core::time::{Millis, Revision};
use std::collections::BTreeMap;

/// One generation of one ServiceExport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edition {
    generation: Option<i64>,
    /// One that was deleted and made again begins to count anew.
    created: Millis,
}

/// The edition of each export.
pub type Editions = OrdMap<ServiceKey, Edition>;

impl Edition {
    /// That of an export as it is.
    #[must_use]
    pub fn of(shard: &Shard) -> Self {
        Edition { generation: shard.generation, created: shard.export.created }
    }

    /// Those of all exports.
    #[must_use]
    pub fn all(shards: &Shared<ServiceKey, Shard>) -> Editions {
        shards.iter().map(|(service, shard)| (service.clone(), Edition::of(shard))).collect()
    }
}

/// What the store acknowledged, whether it took or refused it, and at which revision.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Acknowledged {
    shards: Shared<ServiceKey, Shard>,
    editions: OrdMap<ServiceKey, (Edition, Revision)>,
}

impl Acknowledged {
    /// The store has all of this, and is at this revision. Says whether there is another edition of anything.
    pub fn follow(&mut self, shards: &Shared<ServiceKey, Shard>, revision: Revision) -> bool {
        let mut news = false;
        for service in map::changed(&self.shards, shards) {
            let edition = shards.get(service).map(|shard| Edition::of(shard));
            if self.editions.get(service).map(|(known, _)| *known) != edition {
                match edition {
                    Some(edition) => self.editions.insert(service.clone(), (edition, revision)),
                    None => self.editions.remove(service),
                };
                news = true;
            }
        }
        self.shards = shards.clone();
        news
    }
}

/// What the view is about, as acknowledgements and views come.
#[derive(Debug, Default)]
pub struct Confirmed {
    acknowledged: OrdMap<ServiceKey, (Edition, Revision)>,
    /// Acknowledged at a revision that the view has not reached.
    waiting: BTreeMap<ServiceKey, (Edition, Revision)>,
    editions: Editions,
}

impl Confirmed {
    /// What a view of this revision is about.
    pub fn follow(&mut self, acknowledged: &Acknowledged, view: Revision) -> Editions {
        for service in map::changed(&self.acknowledged, &acknowledged.editions) {
            self.editions.remove(service);
            match acknowledged.editions.get(service) {
                Some(edition) => self.waiting.insert(service.clone(), *edition),
                None => self.waiting.remove(service),
            };
        }
        self.acknowledged = acknowledged.editions.clone();
        let editions = &mut self.editions;
        self.waiting.retain(|service, (edition, revision)| {
            let reached = *revision <= view;
            if reached {
                editions.insert(service.clone(), *edition);
            }
            !reached
        });
        self.editions.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{catalog, name, shard};

    fn at(index: u64) -> Revision {
        Revision { generation: 1, index }
    }

    #[test]
    fn an_edition_is_confirmed_once_it_was_acknowledged_and_the_view_is_as_far() {
        let (web, cart): (ServiceKey, ServiceKey) = (name("shop/web"), name("shop/cart"));
        let first = catalog(&[("shop/web", shard(&["web-0"])), ("shop/cart", shard(&["cart-0"]))]);
        let (mut said, mut confirmed) = (Acknowledged::default(), Confirmed::default());
        assert!(said.follow(&first.shards, at(7)));
        assert_eq!(confirmed.follow(&said, at(6)), Editions::new());
        assert_eq!(confirmed.follow(&said, at(7)), Edition::all(&first.shards));

        let mut second = first.shards.clone();
        map::set(&mut second, &web, Some(shard(&["web-1"])));
        assert!(!said.follow(&second, at(8)), "endpoints are no edition");
        map::set(&mut second, &web, Some(Shard { generation: Some(4), ..shard(&["web-1"]) }));
        assert!(said.follow(&second, at(9)) && !said.follow(&second, at(10)));
        let mut rest = Edition::all(&first.shards);
        rest.remove(&web);
        assert_eq!(confirmed.follow(&said, at(8)), rest, "the other one's is not put in doubt");
        assert_eq!(confirmed.follow(&said, at(9)), Edition::all(&second));

        let mut third = second.clone();
        third.remove(&cart);
        said.follow(&third, at(11));
        assert_eq!(confirmed.follow(&said, at(9)), Edition::all(&third), "what is gone is not waited for");
    }
}
