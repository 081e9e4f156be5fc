//! Where connections go: directly or by gateways.

use crate::command::CatalogChange;
use crate::compute::{at_home, explain};
use crate::endpoint::{Endpoint, Gateway, Locality};
use crate::identity::SpiffeId;
use crate::name::{Hostname, NetworkName, PortName, TopologyName};
use crate::report::{Outcome, Rejection};
use crate::service::{Export, ServiceType};
use crate::testing::{
    World, address, endpoint, endpoint_id, export, gateway, http, instance, interest, key, name, port, put,
    put_endpoints, spec,
};
use crate::view::{Candidate, Path, Tier};
use std::collections::{BTreeMap, BTreeSet};

fn port_name(s: &str) -> PortName {
    PortName::parse(s).unwrap()
}

fn cart_identity(cluster: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://{cluster}.fed/ns/shop/sa/cart")).unwrap()
}

fn direct(cluster: &str, tier: Tier, n: u8) -> Candidate {
    let Endpoint { id, address, ports, locality, spiffe_id, inbound_port, hostname, .. } =
        endpoint(cluster, n);
    let path = Path::Direct { id, address, ports, locality, spiffe_id, inbound_port, hostname };
    Candidate { cluster: name(cluster), tier, path }
}

fn by_gateway(cluster: &str, n: u8, weights: &[(&str, u32)], identities: &[SpiffeId]) -> Candidate {
    let path = Path::Gateway {
        address: address(n),
        locality: Locality::default(),
        weights: weights.iter().map(|(port, share)| (port_name(port), *share)).collect(),
        identities: identities.iter().cloned().collect(),
        endpoints: Vec::new(),
    };
    Candidate { cluster: name(cluster), tier: Tier::Remote, path }
}

fn profile(network: &str) -> CatalogChange {
    let network = NetworkName::parse(network).unwrap();
    CatalogChange::PutProfile { network, locality: Locality::default(), probes: vec![] }
}

fn gateways(gateways: Vec<Gateway>) -> CatalogChange {
    CatalogChange::PutGateways { gateways }
}

/// West exports `shop/cart` with these endpoints and gateways to east.
fn scene(export: Export, endpoints: Vec<Endpoint>, doors: Vec<Gateway>) -> World {
    let mut world = World::of(&["east", "west"]);
    world.put("west", vec![put("shop/cart", export), put_endpoints("shop/cart", endpoints), gateways(doors)]);
    world
}

fn candidates(world: &World) -> Vec<Candidate> {
    world.import("east", "shop/cart").unwrap().candidates
}

/// What became of each place of west, in the order of the report.
fn outcomes(world: &World) -> Vec<Result<&'static str, Rejection>> {
    let report = explain(&world.state, world.id("east"), &key("shop/cart")).unwrap();
    report
        .decisions
        .into_iter()
        .map(|decision| match decision.outcome {
            Outcome::Chosen(_) => Ok("chosen"),
            Outcome::BehindGateway => Ok("behind"),
            Outcome::Rejected(why) => Err(why),
        })
        .collect()
}

#[test]
fn in_one_network_endpoints_are_reached_directly() {
    let mut world = scene(http(), vec![endpoint("west", 1)], vec![gateway("flat", 1, 1)]);
    for cluster in ["east", "west"] {
        world.put(cluster, vec![profile("flat")]);
    }
    assert_eq!(candidates(&world), [direct("west", Tier::Remote, 1)]);
    assert_eq!(outcomes(&world), [Ok("chosen"), Err(Rejection::SameNetwork)]);
}

#[test]
fn across_networks_gateways_share_the_ready_endpoints() {
    let mut tired = endpoint("west", 4);
    tired.ready = false;
    let endpoints = vec![endpoint("west", 1), endpoint("west", 2), endpoint("west", 3), tired];
    let mut shut = gateway("west", 3, 5);
    shut.ready = false;
    let doors =
        vec![gateway("west", 2, 1), gateway("west", 1, 1), shut, gateway("west", 4, 0), gateway("far", 5, 1)];
    let world = scene(http(), endpoints, doors);
    let identities = [cart_identity("west")];
    let expected = [
        by_gateway("west", 1, &[("http", 2)], &identities),
        by_gateway("west", 2, &[("http", 1)], &identities),
    ];
    assert_eq!(candidates(&world), expected);
    assert_eq!(
        outcomes(&world),
        [
            Ok("behind"),
            Ok("behind"),
            Ok("behind"),
            Err(Rejection::NotReady),
            Ok("chosen"),
            Ok("chosen"),
            Err(Rejection::NotReady),
            Err(Rejection::NoWeight),
            Err(Rejection::NoWeight),
        ]
    );
}

#[test]
fn a_gateway_without_a_share_is_left_out() {
    let world = scene(http(), vec![endpoint("west", 1)], vec![gateway("west", 1, 1), gateway("west", 2, 1)]);
    assert_eq!(candidates(&world), [by_gateway("west", 1, &[("http", 1)], &[cart_identity("west")])]);
    assert_eq!(outcomes(&world), [Ok("behind"), Ok("chosen"), Err(Rejection::NoWeight)]);
}

#[test]
fn without_a_gateway_another_network_is_out_of_reach() {
    let world = scene(http(), vec![endpoint("west", 1)], vec![gateway("west", 1, 0)]);
    assert_eq!(candidates(&world), []);
    assert_eq!(outcomes(&world), [Err(Rejection::NoGateway), Err(Rejection::NoWeight)]);
    assert!(world.import("east", "shop/cart").is_some(), "the import itself stays");
}

#[test]
fn an_endpoints_own_network_goes_before_its_clusters() {
    let mut near = endpoint("west", 1);
    near.network = Some(NetworkName::parse("east").unwrap());
    let far = endpoint("west", 2);
    let world = scene(http(), vec![near, far], vec![gateway("west", 1, 1)]);
    let expected =
        [direct("west", Tier::Remote, 1), by_gateway("west", 1, &[("http", 1)], &[cart_identity("west")])];
    assert_eq!(candidates(&world), expected);
}

#[test]
fn without_an_inbound_proxy_the_gateway_answers_under_its_own_identity() {
    let (mut bare, mut unknown) = (endpoint("west", 1), endpoint("west", 2));
    bare.inbound_port = None;
    unknown.spiffe_id = None;
    let gateway_identity = SpiffeId::parse("spiffe://west.fed/sealane/gateway").unwrap();
    let world = scene(http(), vec![bare], vec![gateway("west", 1, 1)]);
    let both = [cart_identity("west"), gateway_identity.clone()];
    assert_eq!(candidates(&world), [by_gateway("west", 1, &[("http", 1)], &both)]);
    let world = scene(http(), vec![unknown], vec![gateway("west", 1, 1)]);
    assert_eq!(candidates(&world), [by_gateway("west", 1, &[("http", 1)], &[gateway_identity])]);
}

#[test]
fn only_headless_imports_name_endpoints_across_networks() {
    let mut headless = spec(vec![port("http", 80)]);
    headless.service_type = ServiceType::Headless;
    let mut first = endpoint("west", 1);
    first.hostname = Some(Hostname::parse("cart-0").unwrap());
    let world = scene(export(headless), vec![first, endpoint("west", 2)], vec![gateway("west", 1, 1)]);
    let Path::Gateway { endpoints, .. } = &candidates(&world)[0].path else { panic!("not by a gateway") };
    let expected = [(endpoint_id(1), Some(Hostname::parse("cart-0").unwrap())), (endpoint_id(2), None)];
    assert_eq!(endpoints.as_slice(), expected);
}

#[test]
fn a_conflicting_port_goes_only_where_it_is_really_exposed() {
    let mut world = World::of(&["east", "west", "edge"]);
    let serve = |cluster: &str, ports: &[(&str, u16)]| {
        let mut endpoint = endpoint(cluster, 1);
        endpoint.ports = ports.iter().map(|(name, _)| (port_name(name), 8080)).collect();
        let list = ports.iter().map(|(name, number)| port(name, *number)).collect();
        vec![put("shop/cart", export(spec(list))), put_endpoints("shop/cart", vec![endpoint])]
    };
    for cluster in ["east", "west", "edge"] {
        world.put(cluster, vec![profile("flat")]);
    }
    world.put("west", serve("west", &[("http", 80)]));
    world.put("edge", serve("edge", &[("http", 81), ("grpc", 90)]));
    let found = world.import("east", "shop/cart").unwrap();
    assert_eq!(found.ports, [port("http", 80), port("grpc", 90)]);
    let shown: Vec<_> = found
        .candidates
        .iter()
        .map(|candidate| match &candidate.path {
            Path::Direct { ports, .. } => (candidate.cluster.as_str(), ports.clone()),
            Path::Gateway { .. } => panic!("one network"),
        })
        .collect();
    let only = |port: &str| BTreeMap::from([(port_name(port), 8080)]);
    assert_eq!(shown, [("edge", only("grpc")), ("west", only("http"))]);
    // An exporter that has nothing but the losing port serves nothing.
    world.put("edge", serve("edge", &[("http", 81)]));
    let report = explain(&world.state, world.id("east"), &key("shop/cart")).unwrap();
    let edge: Vec<_> =
        report.decisions.iter().filter(|d| d.cluster == name("edge")).map(|d| &d.outcome).collect();
    assert_eq!(edge, [&Outcome::Rejected(Rejection::NoPort)]);
}

#[test]
fn a_headless_service_need_not_have_ports() {
    let mut headless = spec(Vec::new());
    headless.service_type = ServiceType::Headless;
    let mut portless = endpoint("west", 1);
    portless.ports.clear();
    let mut world = World::of(&["east", "west"]);
    for cluster in ["east", "west"] {
        world.put(cluster, vec![profile("flat")]);
    }
    world.put("west", vec![put("shop/cart", export(headless)), put_endpoints("shop/cart", vec![portless])]);
    let [Candidate { path: Path::Direct { address, ports, .. }, .. }] = &candidates(&world)[..] else {
        panic!("there is no candidate")
    };
    assert_eq!((*address, ports.len()), (endpoint("west", 1).address, 0));
}

#[test]
fn a_cluster_computes_its_own_candidates_as_the_store_does() {
    let mut world = World::of(&["east", "west"]);
    let mut waiting = endpoint("east", 2);
    waiting.ready = false;
    let mut other = endpoint("east", 3);
    other.ports = BTreeMap::from([(port_name("other"), 8080)]);
    let endpoints = vec![endpoint("east", 1), waiting, other];
    world.put(
        "east",
        vec![profile("flat"), put("shop/cart", http()), put_endpoints("shop/cart", endpoints.clone())],
    );
    let import = world.import("east", "shop/cart").unwrap();
    let spec = http().spec.unwrap();
    let locality = world.state.clusters[&world.id("east")].locality.clone();
    let own = at_home(&import, &name("east"), &locality, &spec, endpoints.iter());
    assert_eq!((own.len(), &own[..]), (1, &import.candidates[..]));
}

#[test]
fn local_endpoints_come_first() {
    let mut world = scene(http(), vec![endpoint("west", 1)], vec![gateway("west", 1, 1)]);
    world.put("east", vec![put("shop/cart", http()), put_endpoints("shop/cart", vec![endpoint("east", 9)])]);
    let remote = by_gateway("west", 1, &[("http", 1)], &[cart_identity("west")]);
    assert_eq!(candidates(&world), [direct("east", Tier::Local, 9), remote]);
}

#[test]
fn a_remote_cluster_without_a_bundle_can_not_be_verified() {
    let mut world = World::new();
    for cluster in ["east", "west"] {
        world.join(cluster);
        world.open(cluster, instance(1)).unwrap();
        world.put(cluster, vec![interest(&["shop"]), profile("flat"), put("shop/cart", http())]);
        world.put(cluster, vec![put_endpoints("shop/cart", vec![endpoint(cluster, 1)])]);
    }
    assert_eq!(candidates(&world), [direct("east", Tier::Local, 1)]);
    assert_eq!(outcomes(&world), [Ok("chosen"), Err(Rejection::NoBundle)]);
    let peers: BTreeSet<_> =
        world.peer("east", "west").into_iter().map(|peer| (peer.name, peer.bundle)).collect();
    assert_eq!(peers, BTreeSet::from([(name("west"), None)]));
}

#[test]
fn a_place_without_a_locality_has_its_clusters() {
    let place = |region: &str| Locality { region: Some(TopologyName::parse(region).unwrap()), zone: None };
    let mut own = endpoint("west", 2);
    own.locality = place("r2");
    let mut world = scene(http(), vec![endpoint("west", 1), own], vec![]);
    let network = NetworkName::parse("east").unwrap();
    world.put("west", vec![CatalogChange::PutProfile { network, locality: place("r1"), probes: vec![] }]);
    let found: Vec<Locality> = candidates(&world)
        .into_iter()
        .map(|candidate| match candidate.path {
            Path::Direct { locality, .. } | Path::Gateway { locality, .. } => locality,
        })
        .collect();
    assert_eq!(found, [place("r1"), place("r2")]);
}
