//! A zone that follows change is the zone that would be made anew.

use super::*;
use proptest::prelude::*;

/// What happens to the sources.
#[derive(Debug, Clone)]
enum Step {
    /// An import is now so, or gone.
    Import(u8, Option<(bool, u8)>),
    /// A namespace comes or goes.
    Namespace(u8),
    /// An import has other addresses, or none.
    Address(u8, Option<u8>),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u8..8, proptest::option::of((any::<bool>(), 0u8..3))).prop_map(|(at, what)| Step::Import(at, what)),
        1 => (0u8..2).prop_map(Step::Namespace),
        2 => (0u8..8, proptest::option::of(0u8..3)).prop_map(|(at, what)| Step::Address(at, what)),
    ]
}

fn key(at: u8) -> ServiceKey {
    name(&format!("ns-{}/svc-{at}", at % 2))
}

fn candidates(count: u8) -> Vec<Candidate> {
    (0..count).map(|n| direct("west", None, &format!("10.2.0.{n}"))).collect()
}

#[derive(Default)]
struct World {
    common: Common,
    interest: BTreeSet<sealane_core::name::Namespace>,
}

impl World {
    fn take(&mut self, step: &Step) {
        match step {
            Step::Import(at, None) => drop(self.common.outbound.remove(&key(*at))),
            Step::Import(at, Some((headless, count))) => {
                let kind = if *headless { ServiceType::Headless } else { ServiceType::ClusterSetIp };
                let (service, address) = (key(*at).to_string(), format!("127.9.0.{count}"));
                let (key, value) = outbound(&service, kind, ports(), candidates(*count), &[&address]);
                self.common.outbound.insert(key, value);
            }
            Step::Namespace(at) => {
                let namespace = name(&format!("ns-{at}"));
                if !self.interest.remove(&namespace) {
                    self.interest.insert(namespace);
                }
            }
            Step::Address(at, what) => {
                if let Some(outbound) = self.common.outbound.get_mut(&key(*at)) {
                    let addresses = what.map(|last| IpAddr::from([10, 96, 0, last])).into_iter().collect();
                    *outbound = Arc::new(Outbound::of(outbound.import.clone(), Given::so_far(addresses)));
                }
            }
        }
    }

    fn common(&self) -> Arc<Common> {
        let mut common = self.common.clone();
        let interest = Arc::new(self.interest.clone());
        common.catalog = Arc::new(Catalog { interest, ..Catalog::default() });
        Arc::new(common)
    }
}

fn entries(zone: &Zone) -> Vec<Option<Entry>> {
    (0..8).map(|at| zone.entry(&key(at)).map(|e| Entry::clone(e))).collect()
}

proptest! {
    #[test]
    fn a_zone_that_follows_is_the_one_made_anew(
        steps in proptest::collection::vec((step(), any::<bool>()), 0..60)
    ) {
        let mut world = World::default();
        let mut zone = Zone::new(world.common(), &[]);
        for (step, look) in steps {
            world.take(&step);
            if look {
                zone = zone.next(world.common());
                let anew = Zone::new(world.common(), &[]);
                prop_assert_eq!(entries(&zone), entries(&anew));
                prop_assert_eq!(zone.len(), anew.len());
            }
        }
    }
}

/// Names are known when what they are made of is, and follow it.
#[tokio::test]
async fn the_loop_waits_for_what_it_needs_and_follows_it() {
    let (sender, common) = watch::channel(None);
    let (zone_sender, mut zone) = watch::channel(None);
    let (status, stop) = (Arc::new(Status::default()), CancellationToken::new());
    let task =
        tokio::spawn(follow(Inputs { common, nameservers: vec![] }, zone_sender, status, stop.clone()));
    tokio::task::yield_now().await;
    assert!(zone.borrow().is_none(), "nothing is known");
    let with = |addresses: &[&str]| {
        let cart = outbound("shop/cart", ServiceType::ClusterSetIp, ports(), vec![], addresses);
        super::common(&["shop"], vec![cart])
    };
    let question = "cart.shop.svc.clusterset.local A";
    let answer = |zone: &watch::Receiver<Option<Arc<Zone>>>| ask(zone.borrow().as_ref().unwrap(), question);
    sender.send_replace(Some(with(&[])));
    zone.changed().await.unwrap();
    assert_eq!(answer(&zone), "ServFail");
    sender.send_replace(Some(with(&["10.96.0.7"])));
    zone.changed().await.unwrap();
    assert_eq!(answer(&zone), "NoError\nan cart.shop.svc.clusterset.local. A 10.96.0.7");
    stop.cancel();
    task.await.unwrap();
}
