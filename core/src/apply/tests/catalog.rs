//! What a catalog may say.

use crate::command::{AdminAction, CatalogChange, RefusalCode, Reply};
use crate::endpoint::Endpoint;
use crate::identity::SpiffeId;
use crate::name::NetworkName;
use crate::service::Invalid;
use crate::state::{Grant, LaneVerdict, TokenScope};
use crate::testing::{
    World, address, bundle, domain, endpoint, endpoint_id, export, gateway, http, instance, interest, key,
    lanes, name, port, put, put_endpoints, spec,
};
use std::collections::BTreeSet;

/// The codes with which one change is refused; the state must then be untouched but for the session.
fn refused(world: &mut World, change: CatalogChange) -> Vec<RefusalCode> {
    let before = (world.state.shards.clone(), world.state.exported.clone());
    let dated = world.state.cluster_named(&name("east")).unwrap().clone();
    let result = world.write("east", vec![change]);
    let now = world.state.cluster_named(&name("east")).unwrap().clone();
    let codes: Vec<RefusalCode> = result.refused.iter().map(|(_, refusal)| refusal.code).collect();
    if !codes.is_empty() {
        assert_eq!((world.state.shards.clone(), world.state.exported.clone()), before);
        let mut expected = (*dated).clone();
        expected.session = now.session.clone();
        assert_eq!(*now, expected);
    }
    codes
}

#[test]
fn an_export_outside_its_grant_is_refused_by_name() {
    let mut world = World::new();
    let scope = TokenScope::Cluster {
        name: name("east"),
        trust_domain: domain("east"),
        exports: Grant { namespaces: vec!["shop*".to_owned(), "bank".to_owned()] },
        imports: Grant::all(),
    };
    let hash = [90; 32];
    let expires = crate::time::Millis(world.at + 1_000);
    assert!(matches!(
        world.admin(AdminAction::CreateToken { hash, scope, expires }),
        Reply::TokenCreated { .. }
    ));
    world.run(None, crate::command::Action::Join { token: hash, key: [1; 32], not_after: expires });
    world.open("east", instance(1)).unwrap();
    let result = world.write("east", vec![put("kube-system/dns", http()), put("shop-eu/cart", http())]);
    let said: Vec<_> = result.refused.iter().map(|(place, r)| (*place, r.code, r.message.as_str())).collect();
    let sentence = "the export grant \"shop*, bank\" of cluster east does not cover namespace kube-system: export it from \
                    one that is covered, or remove the cluster and let it join again with a grant that covers this one";
    assert_eq!(said, [(0, RefusalCode::Forbidden, sentence)]);
    assert_eq!(world.state.services(), BTreeSet::from([key("shop-eu/cart")]));
}

#[test]
fn ports_are_sound_or_refused() {
    let mut world = World::of(&["east"]);
    let many = (0u16..101).map(|n| port(&format!("p{n}"), 1000 + n)).collect();
    for ports in [
        vec![port("http", 0)],
        vec![port("http", 80), port("http", 81)],
        vec![port("http", 80), port("web", 80)],
        vec![port("", 80), port("web", 81)],
        many,
    ] {
        let change = put("shop/cart", export(spec(ports)));
        assert_eq!(refused(&mut world, change), [RefusalCode::Invalid]);
    }
    for ports in [vec![], vec![port("", 80)]] {
        assert_eq!(refused(&mut world, put("shop/cart", export(spec(ports)))), []);
    }
    let mut wordy = spec(vec![]);
    wordy.labels.insert("a".to_owned(), "x".repeat(64 * 1024));
    assert_eq!(refused(&mut world, put("shop/cart", export(wordy))), [RefusalCode::Invalid]);
}

#[test]
fn limits_are_kept_and_what_is_there_stays() {
    let mut world = World::of(&["east"]);
    world.state.meta.limits.services = 1;
    world.state.meta.limits.endpoints = 2;
    world.state.meta.limits.gateways = 1;
    world.state.meta.limits.namespaces = 1;
    assert_eq!(refused(&mut world, put("shop/cart", http())), []);
    assert_eq!(refused(&mut world, put("shop/till", http())), [RefusalCode::Invalid]);
    assert_eq!(refused(&mut world, put("shop/cart", export(spec(vec![])))), [], "a known export may change");
    let three = vec![endpoint("east", 1), endpoint("east", 2), endpoint("east", 3)];
    assert_eq!(refused(&mut world, put_endpoints("shop/cart", three)), [RefusalCode::Invalid]);
    let gateways = vec![gateway("n", 1, 1), gateway("n", 2, 1)];
    assert_eq!(refused(&mut world, CatalogChange::PutGateways { gateways }), [RefusalCode::Invalid]);
    assert_eq!(refused(&mut world, interest(&["a", "b"])), [RefusalCode::Invalid]);
}

#[test]
fn endpoints_are_their_clusters_own() {
    let mut world = World::of(&["east"]);
    world.put("east", vec![put("shop/cart", http())]);
    let changed = |change: &dyn Fn(&mut Endpoint)| {
        let mut endpoint = endpoint("east", 1);
        change(&mut endpoint);
        put_endpoints("shop/cart", vec![endpoint])
    };
    let strangers: [&dyn Fn(&mut Endpoint); 5] = [
        &|e| e.spiffe_id = Some(SpiffeId::parse("spiffe://west.fed/ns/shop/sa/cart").unwrap()),
        &|e| e.address = [0, 0, 0, 0].into(),
        &|e| e.address = [224, 0, 0, 1].into(),
        &|e| e.inbound_port = Some(0),
        &|e| *e.ports.values_mut().next().unwrap() = 0,
    ];
    for stranger in strangers {
        assert_eq!(refused(&mut world, changed(stranger)), [RefusalCode::Invalid]);
    }
    let twice = vec![endpoint("east", 1), endpoint("east", 1)];
    assert_eq!(refused(&mut world, put_endpoints("shop/cart", twice)), [RefusalCode::Invalid]);
    assert_eq!(refused(&mut world, put_endpoints("shop/none", vec![])), [RefusalCode::NotFound]);
    let chunk = vec![endpoint("east", 1); 101];
    assert_eq!(refused(&mut world, put_endpoints("shop/cart", chunk)), [RefusalCode::Invalid]);
}

#[test]
fn endpoints_come_change_and_go() {
    let mut world = World::of(&["east"]);
    let all = vec![endpoint("east", 1), endpoint("east", 2), endpoint("east", 3)];
    world.put("east", vec![put("shop/cart", http()), put_endpoints("shop/cart", all)]);
    let ids = |world: &World| {
        let shard = world.state.shard(&key("shop/cart"), world.id("east")).unwrap();
        shard.endpoints.keys().cloned().collect::<Vec<_>>()
    };
    let of = |ids: &[u8]| ids.iter().map(|n| endpoint_id(*n)).collect::<Vec<_>>();
    let set = |ids: &[u8]| ids.iter().map(|n| endpoint_id(*n)).collect::<BTreeSet<_>>();
    assert_eq!(ids(&world), of(&[1, 2, 3]));
    world.put("east", vec![CatalogChange::RemoveEndpoints { service: key("shop/cart"), ids: set(&[2, 9]) }]);
    assert_eq!(ids(&world), of(&[1, 3]));
    // An export that changes keeps its endpoints.
    world.put("east", vec![put("shop/cart", export(spec(vec![port("http", 81)])))]);
    assert_eq!(ids(&world), of(&[1, 3]));
    world.put("east", vec![CatalogChange::RetainEndpoints { service: key("shop/cart"), ids: set(&[3]) }]);
    assert_eq!(ids(&world), of(&[3]));
    world.put("east", vec![CatalogChange::RemoveExport { service: key("shop/cart") }]);
    assert!(world.state.shards.is_empty());
}

#[test]
fn an_export_that_went_and_came_is_a_younger_one() {
    let mut world = World::of(&["east", "west"]);
    world.put("east", vec![put("shop/cart", http())]);
    world.put("west", vec![put("shop/cart", http())]);
    let age =
        |world: &World, cluster| world.state.shard(&key("shop/cart"), world.id(cluster)).unwrap().observed;
    assert!(age(&world, "east") < age(&world, "west"));
    let mut broken = http();
    broken.spec = Err(Invalid::NoService);
    world.put("east", vec![put("shop/cart", broken), put("shop/cart", http())]);
    assert!(age(&world, "east") < age(&world, "west"), "an invalid moment does not make it younger");
    world.put(
        "east",
        vec![CatalogChange::RemoveExport { service: key("shop/cart") }, put("shop/cart", http())],
    );
    assert!(age(&world, "east") > age(&world, "west"));
}

#[test]
fn a_bundle_is_of_its_own_trust_domain_and_goes_forward() {
    let mut world = World::of(&["east"]);
    let put = |bundle| CatalogChange::PutBundle { bundle };
    let held = |world: &World| world.state.cluster_named(&name("east")).unwrap().bundle.clone().unwrap();
    assert_eq!(refused(&mut world, put(bundle("west", 2))), [RefusalCode::Forbidden]);
    assert_eq!(refused(&mut world, put(bundle("east", 0))), [RefusalCode::Invalid]);
    let mut other = bundle("east", 1);
    other.roots.push(vec![1]);
    assert_eq!(refused(&mut world, put(other)), [RefusalCode::Invalid], "a change needs a new sequence");
    assert_eq!(refused(&mut world, put(bundle("east", 1))), []);
    assert_eq!(refused(&mut world, put(bundle("east", 5))), []);
    assert_eq!(*held(&world), bundle("east", 5));
    for roots in [vec![], vec![vec![]], vec![vec![1]; 9], vec![vec![1; 8193]]] {
        let mut flawed = bundle("east", 6);
        flawed.roots = roots;
        assert_eq!(refused(&mut world, put(flawed)), [RefusalCode::Invalid]);
    }
}

#[test]
fn gateways_and_probes_can_be_dialled() {
    let mut world = World::of(&["east"]);
    let mut zero = gateway("n", 1, 1);
    zero.address.port = 0;
    let gateways = |gateways| CatalogChange::PutGateways { gateways };
    assert_eq!(refused(&mut world, gateways(vec![zero.clone()])), [RefusalCode::Invalid]);
    let twins = vec![gateway("n", 1, 1), gateway("m", 1, 1)];
    assert_eq!(refused(&mut world, gateways(twins)), [RefusalCode::Invalid]);
    let profile = |probes| CatalogChange::PutProfile {
        network: NetworkName::parse("n").unwrap(),
        locality: crate::endpoint::Locality::default(),
        probes,
    };
    assert_eq!(refused(&mut world, profile(vec![zero.address])), [RefusalCode::Invalid]);
    assert_eq!(refused(&mut world, profile((0..9).map(address).collect())), [RefusalCode::Invalid]);
    assert_eq!(refused(&mut world, profile((0..8).map(address).collect())), []);
}

#[test]
fn lanes_lead_to_other_members_and_a_stranger_spoils_none() {
    let mut world = World::of(&["east", "west"]);
    let result = world.write(
        "east",
        vec![lanes(&[("gone", LaneVerdict::Up), ("west", LaneVerdict::Down), ("east", LaneVerdict::Up)])],
    );
    let said: Vec<_> = result.refused.iter().map(|(_, r)| (r.code, r.message.as_str())).collect();
    assert_eq!(
        said,
        [(RefusalCode::NotFound, "no lane leads to east, gone: not another member of this federation")]
    );
    let (east, west) = (world.state.cluster_named(&name("east")).unwrap(), world.id("west"));
    assert_eq!(
        east.lanes.iter().map(|(id, lane)| (*id, lane.verdict)).collect::<Vec<_>>(),
        [(west, LaneVerdict::Down)]
    );
    let since = east.lanes[&west].since;
    world.put(
        "east",
        vec![CatalogChange::PutLanes { lanes: vec![(name("west"), LaneVerdict::Down, Some(5))] }],
    );
    let lane = world.state.cluster_named(&name("east")).unwrap().lanes[&west];
    assert_eq!(
        (lane.since, lane.rtt_us),
        (since, Some(5)),
        "a report of the same verdict does not make it younger"
    );
}
