use super::*;
use crate::role::tests::{LOCALHOST, direct, inbound, outbound, target};
use proptest::prelude::*;
use sealane_core::view::Tier;
use std::net::{IpAddr, Ipv4Addr};

const ENDPOINT: &str = "e-aaaaaaaaaaaaa";

/// What an agent does: an import or an export comes, changes or goes.
#[derive(Debug, Clone)]
enum Step {
    Import { service: u8, address: u8, candidates: u8 },
    Export { service: u8, places: u8 },
    Gone { service: u8, import: bool },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u8..4, 0u8..3, 0u8..3)
            .prop_map(|(service, address, candidates)| Step::Import { service, address, candidates }),
        2 => (0u8..4, 0u8..3).prop_map(|(service, places)| Step::Export { service, places }),
        3 => (0u8..4, any::<bool>()).prop_map(|(service, import)| Step::Gone { service, import }),
    ]
}

fn service(number: u8) -> ServiceKey {
    ServiceKey::parse(&format!("shop/s{number}")).unwrap()
}

fn import(number: u8, address: u8, candidates: u8) -> Item {
    let to = |port: u8| SocketAddr::new(LOCALHOST, 1_000 + u16::from(port));
    let candidates = (0..candidates).map(|n| direct("west", Tier::Remote, ENDPOINT, to(n), None)).collect();
    let Item::Outbound(mut item) = outbound(candidates) else { panic!("an import") };
    item.import.service = service(number);
    item.addresses = vec![IpAddr::V4(Ipv4Addr::new(240, 0, 0, address))];
    Item::Outbound(item)
}

fn export(number: u8, places: u8) -> Item {
    let targets =
        (0..places).map(|n| target(ENDPOINT, None, SocketAddr::new(LOCALHOST, 2_000 + u16::from(n))));
    let Item::Inbound(mut item) = inbound(targets.collect(), &["east"]) else { panic!("an export") };
    item.service = service(number);
    Item::Inbound(item)
}

fn builder() -> Builder {
    let mut builder = Builder::new(crate::tls::tests::identity("east.test", "ns/shop/sa/web"));
    builder.welcome(ClusterName::parse("east").unwrap());
    builder
}

fn change(full: bool, upserts: Vec<(Key, Item)>, deletes: Vec<Key>) -> Change {
    let upserts = upserts.into_iter().map(|(key, item)| (key, item, Default::default())).collect();
    Change { full, upserts, deletes, ..Change::default() }
}

type Told = (
    BTreeMap<ServiceKey, (BTreeSet<SocketAddr>, usize)>,
    BTreeMap<ServiceKey, usize>,
    BTreeMap<SocketAddr, ServiceKey>,
);

/// What a snapshot comes to.
fn told(snapshot: &Snapshot) -> Told {
    let choices = |o: &Outbound| o.ports.values().map(|p| p.choices.len()).sum::<usize>();
    let places = |i: &Inbound| i.ports.values().map(Vec::len).sum::<usize>();
    (
        snapshot.outbound.iter().map(|(k, o)| (k.clone(), (o.sockets(), choices(o)))).collect(),
        snapshot.inbound.iter().map(|(k, i)| (k.clone(), places(i))).collect(),
        snapshot.by_socket.iter().map(|(at, k)| (*at, k.clone())).collect(),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn what_follows_is_what_is_made_anew(steps in proptest::collection::vec(step(), 1..24)) {
        let mut following = builder();
        let mut items: BTreeMap<Key, Item> = BTreeMap::new();
        for step in steps {
            let (upserts, deletes) = match step {
                Step::Import { service: n, address, candidates } => {
                    (vec![(Key::Outbound(service(n)), import(n, address, candidates))], vec![])
                }
                Step::Export { service: n, places } => {
                    (vec![(Key::Inbound(service(n)), export(n, places))], vec![])
                }
                Step::Gone { service: n, import: true } => (vec![], vec![Key::Outbound(service(n))]),
                Step::Gone { service: n, import: false } => (vec![], vec![Key::Inbound(service(n))]),
            };
            items.extend(upserts.iter().cloned());
            items.retain(|key, _| !deletes.contains(key));
            let followed = following.apply(change(false, upserts, deletes));
            let all: Vec<(Key, Item)> = items.clone().into_iter().collect();
            let anew = builder().apply(change(true, all.clone(), vec![]));
            prop_assert_eq!(told(&followed), told(&anew));
            let again = following.apply(change(true, all, vec![]));
            prop_assert_eq!(told(&again), told(&anew));
        }
    }
}
