use super::*;
use crate::index::{
    Change, NamespacePart, Node, Part, Pod, PodKey, Slice, SliceEndpoint, SliceKey, SlicePort,
};
use sealane_core::name::{PortName, ServiceAccount, ServiceName, TopologyName};
use sealane_core::service::{
    InternalTrafficPolicy, Port, Protocol, ServiceFacts, ServiceKind, SessionAffinity,
};
use sealane_core::time::Millis;

pub(crate) fn own() -> Own {
    Own {
        cluster: "east".parse().unwrap(),
        trust_domain: "east.fed".parse().unwrap(),
        network: "east".parse().unwrap(),
        locality: Locality { region: Some("r0".parse().unwrap()), zone: None },
        gateways: vec![],
        selector: Selector::default(),
        bundle: Bundle {
            trust_domain: "east.fed".parse().unwrap(),
            sequence: 1,
            refresh_hint_s: 300,
            roots: vec![vec![1]],
        },
    }
}

fn topology(name: &str) -> Option<TopologyName> {
    Some(name.parse().unwrap())
}

fn key() -> ServiceKey {
    ServiceKey::parse("shop/web").unwrap()
}

fn facts(kind: ServiceKind) -> Part {
    let port = |name: &str, port| Port {
        name: PortName::parse(name).unwrap(),
        protocol: Protocol::Tcp,
        port,
        app_protocol: None,
    };
    let facts = ServiceFacts {
        kind,
        ports: vec![port("http", 80), port("admin", 81)],
        session_affinity: SessionAffinity::None,
        session_affinity_timeout_s: None,
        internal_traffic_policy: InternalTrafficPolicy::Cluster,
        traffic_distribution: None,
        ip_families: vec![],
    };
    Part::Service(key(), facts)
}

fn slice(endpoints: Vec<SliceEndpoint>) -> Part {
    let port =
        |name: &str, port| SlicePort { name: PortName::parse(name).unwrap(), protocol: Protocol::Tcp, port };
    let slice = Slice {
        service: ServiceName::parse("web").unwrap(),
        family: IpFamily::V4,
        ports: vec![port("http", 8080), port("strange", 9)],
        endpoints,
    };
    Part::Slice(SliceKey { namespace: key().namespace, name: "web-1".to_owned() }, slice)
}

fn endpoint(address: &str, pod: Option<&str>) -> SliceEndpoint {
    SliceEndpoint {
        address: address.parse().unwrap(),
        ready: true,
        hostname: None,
        node: None,
        zone: topology("z-slice"),
        pod: pod.map(str::to_owned),
    }
}

fn pod(uid: Option<&str>) -> Part {
    let pod = Pod {
        uid: uid.map(str::to_owned),
        account: ServiceAccount::parse("cart").unwrap(),
        ips: vec!["10.1.0.1".parse().unwrap()],
        node: Some("n1".to_owned()),
        inbound_port: Some(15008),
        network: None,
    };
    Part::Pod(PodKey { namespace: key().namespace, name: "web-0".to_owned() }, pod)
}

struct Cluster {
    index: Index,
    catalog: Catalog,
}

impl Cluster {
    fn new() -> Self {
        Cluster { index: Index::default(), catalog: Catalog::default() }
    }

    fn put(&mut self, part: Part) -> bool {
        let touched = self.index.apply(Change::Put(part));
        self.catalog.update(&self.index, &own(), &touched)
    }
}

fn export() -> Part {
    let labels =
        BTreeMap::from([("team".to_owned(), "a".to_owned()), ("sealane.dev/x".to_owned(), "b".to_owned())]);
    Part::Export(key(), ServiceExport { labels, created: Millis(7), ..ServiceExport::default() })
}

#[test]
fn an_export_is_its_service_with_endpoints_of_slices_pods_and_nodes() {
    let mut cluster = Cluster::new();
    assert!(!cluster.put(facts(ServiceKind::ClusterIp)), "a service alone exports nothing");
    assert!(cluster.put(export()));
    assert!(cluster.put(slice(vec![endpoint("10.1.0.1", Some("web-0")), endpoint("10.1.0.2", None)])));
    assert!(cluster.put(pod(Some("6b1f"))));
    let node = Node { region: topology("r1"), zone: topology("z1"), network: None };
    assert!(cluster.put(Part::Node("n1".to_owned(), node.clone())));
    assert!(!cluster.put(Part::Node("n1".to_owned(), node)));

    let shard = &cluster.catalog.shards[&key()];
    let spec = shard.export.spec.as_ref().unwrap();
    assert_eq!(spec.labels, BTreeMap::from([("team".to_owned(), "a".to_owned())]));
    assert_eq!(spec.ip_families, [IpFamily::V4]);
    assert_eq!(shard.notes, ["spec.exportedLabels: sealane.dev/x is reserved and was left out"]);
    let http = BTreeMap::from([(PortName::parse("http").unwrap(), 8080)]);
    let with_pod = Endpoint {
        id: endpoint_id("6b1f"),
        address: "10.1.0.1".parse().unwrap(),
        ports: http.clone(),
        ready: true,
        locality: Locality { region: topology("r1"), zone: topology("z1") },
        spiffe_id: Some("spiffe://east.fed/ns/shop/sa/cart".parse().unwrap()),
        inbound_port: Some(15008),
        hostname: None,
        network: None,
    };
    let without = Endpoint {
        id: endpoint_id("shop/web-1/10.1.0.2"),
        address: "10.1.0.2".parse().unwrap(),
        ports: http,
        ready: true,
        locality: Locality { region: topology("r0"), zone: topology("z-slice") },
        spiffe_id: None,
        inbound_port: None,
        hostname: None,
        network: None,
    };
    let mut expected = vec![with_pod, without];
    expected.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(shard.endpoints().cloned().collect::<Vec<_>>(), expected);
}

#[test]
fn an_invalid_export_says_why_and_has_no_endpoints() {
    let mut cluster = Cluster::new();
    cluster.put(export());
    cluster.put(slice(vec![endpoint("10.1.0.1", None)]));
    assert_eq!(validity(&cluster.catalog.shards[&key()]), Err(Invalid::NoService));
    cluster.put(facts(ServiceKind::ExternalName));
    let shard = cluster.catalog.shards[&key()].clone();
    assert_eq!((validity(&shard), shard.backends.len()), (Err(Invalid::InvalidServiceType), 0));
    cluster.put(facts(ServiceKind::Headless));
    assert_eq!(cluster.catalog.shards[&key()].backends.len(), 1);
    let touched = cluster.index.apply(Change::Remove(crate::index::PartKey::Export(key())));
    assert!(cluster.catalog.update(&cluster.index, &own(), &touched));
    assert!(cluster.catalog.shards.is_empty());
}

#[test]
fn an_endpoint_keeps_its_id_for_the_life_of_its_pod() {
    let id = |uid: Option<&str>, address: &str| {
        let mut cluster = Cluster::new();
        cluster.put(facts(ServiceKind::ClusterIp));
        cluster.put(export());
        cluster.put(pod(uid));
        cluster.put(slice(vec![endpoint(address, Some("web-0"))]));
        cluster.catalog.shards[&key()].backends.keys().next().unwrap().clone()
    };
    assert_eq!(id(Some("u1"), "10.1.0.1"), id(Some("u1"), "10.1.0.9"), "the same pod, another address");
    assert_ne!(id(Some("u1"), "10.1.0.1"), id(Some("u2"), "10.1.0.1"), "another pod at the address");
    assert_eq!(id(None, "10.1.0.1"), id(None, "10.1.0.9"), "by its name where it has no UID");
}

#[test]
fn the_interest_is_the_namespaces_that_exist() {
    let mut cluster = Cluster::new();
    let namespace = |n: &str| Part::Namespace(Namespace::parse(n).unwrap(), NamespacePart::default());
    assert!(cluster.put(namespace("shop")));
    assert!(!cluster.put(namespace("shop")));
    assert_eq!(*cluster.catalog.interest, BTreeSet::from([Namespace::parse("shop").unwrap()]));
}

/// The endpoint of pod `web-0`, which is on node `n1`.
fn placed(cluster: &Cluster) -> Endpoint {
    cluster.catalog.shards[&key()].backends[&endpoint_id("6b1f")].endpoint.clone()
}

#[test]
fn a_pods_network_is_its_annotations_else_its_nodes_else_its_clusters() {
    let mut cluster = Cluster::new();
    for part in [facts(ServiceKind::ClusterIp), export(), slice(vec![endpoint("10.1.0.1", Some("web-0"))])] {
        cluster.put(part);
    }
    cluster.put(pod(Some("6b1f")));
    assert_eq!(placed(&cluster).network, None);
    let lan: Option<NetworkName> = Some("lan".parse().unwrap());
    cluster.put(Part::Node("n1".to_owned(), Node { network: lan.clone(), ..Node::default() }));
    assert_eq!(placed(&cluster).network, lan);
    let Part::Pod(at, facts) = pod(Some("6b1f")) else { unreachable!() };
    let vpn: Option<NetworkName> = Some("vpn".parse().unwrap());
    cluster.put(Part::Pod(at, Pod { network: vpn.clone(), ..facts }));
    assert_eq!(placed(&cluster).network, vpn);
}

#[test]
fn a_zone_is_never_joined_with_the_region_of_something_else() {
    // The node's region and zone, the slice's zone, the cluster's own; and what comes of it.
    let table = [
        (("r1", "z1"), "zs", ("r0", "z0"), ("r1", "z1")),
        (("r1", ""), "zs", ("r0", "z0"), ("r1", "")),
        (("", "z1"), "zs", ("r0", "z0"), ("", "z1")),
        (("", "z0"), "zs", ("r0", "z0"), ("r0", "z0")),
        (("", ""), "zs", ("r0", "z0"), ("", "zs")),
        (("", ""), "zs", ("r0", ""), ("r0", "zs")),
        (("", ""), "", ("r0", "z0"), ("r0", "z0")),
    ];
    let name = |text: &str| (!text.is_empty()).then(|| text.parse().unwrap());
    let locality = |(region, zone): (&str, &str)| Locality { region: name(region), zone: name(zone) };
    for (node, zone, own_place, expected) in table {
        let mut index = Index::default();
        let given = SliceEndpoint { zone: name(zone), ..endpoint("10.1.0.1", Some("web-0")) };
        let node = Node { region: name(node.0), zone: name(node.1), network: None };
        let own = Own { locality: locality(own_place), ..own() };
        let parts = [
            facts(ServiceKind::ClusterIp),
            export(),
            slice(vec![given]),
            pod(Some("6b1f")),
            Part::Node("n1".to_owned(), node.clone()),
        ];
        let mut catalog = Catalog::default();
        for part in parts {
            let touched = index.apply(Change::Put(part));
            catalog.update(&index, &own, &touched);
        }
        let found = placed(&Cluster { index, catalog }).locality;
        assert_eq!(found, locality(expected), "{node:?} {zone} {own_place:?}");
    }
}
