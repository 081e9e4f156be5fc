use super::*;
use crate::catalog::{Backend, Shard, endpoint_id};
use crate::index::{PodKey, Selector};
use crate::view::Origin;
use sealane_core::endpoint::{Endpoint, GatewayHost, Locality};
use sealane_core::identity::ClusterId;
use sealane_core::service::{Export, ExportSpec, InternalTrafficPolicy, Port, Protocol, SessionAffinity};
use sealane_core::time::Millis;
use sealane_core::view::{Candidate, ExportStatus, Path, Peer, Standing, View, ViewItem, ViewKey};

pub(crate) fn name<T: std::str::FromStr<Err = sealane_core::name::NameError>>(text: &str) -> T {
    text.parse().unwrap()
}

pub(crate) fn bundle(domain: &str) -> Bundle {
    Bundle { trust_domain: name(domain), sequence: 1, refresh_hint_s: 300, roots: vec![vec![1]] }
}

pub(crate) fn own() -> Own {
    Own {
        cluster: name("east"),
        trust_domain: name("east.fed"),
        network: name("east"),
        locality: Locality::default(),
        gateways: vec![],
        selector: Selector::default(),
        bundle: bundle("east.fed"),
    }
}

pub(crate) fn port() -> Port {
    Port { name: name("http"), protocol: Protocol::Tcp, port: 80, app_protocol: None }
}

fn direct(cluster: &str, tier: Tier) -> Candidate {
    let path = Path::Direct {
        id: endpoint_id(cluster),
        address: "10.0.0.1".parse().unwrap(),
        ports: BTreeMap::from([(name("http"), 8080)]),
        locality: Locality::default(),
        spiffe_id: None,
        inbound_port: Some(15008),
        hostname: None,
    };
    Candidate { cluster: name(cluster), tier, path }
}

pub(crate) fn gateway_candidate(cluster: &str, tier: Tier) -> Candidate {
    let path = Path::Gateway {
        address: GatewayAddress { host: GatewayHost::Ip("10.9.0.1".parse().unwrap()), port: 15443 },
        locality: Locality::default(),
        weights: BTreeMap::from([(name("http"), 2)]),
        identities: BTreeSet::new(),
        endpoints: vec![],
    };
    Candidate { cluster: name(cluster), tier, path }
}

pub(crate) fn import(service: &str, candidates: Vec<Candidate>) -> Arc<Import> {
    Arc::new(Import {
        service: name(service),
        service_type: ServiceType::ClusterSetIp,
        ports: vec![port()],
        session_affinity: SessionAffinity::None,
        session_affinity_timeout_s: None,
        internal_traffic_policy: InternalTrafficPolicy::Cluster,
        traffic_distribution: None,
        ip_families: vec![],
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        clusters: candidates.iter().map(|c| c.cluster.clone()).collect(),
        candidates,
    })
}

pub(crate) fn spec() -> ExportSpec {
    ExportSpec {
        service_type: ServiceType::ClusterSetIp,
        ports: vec![port()],
        session_affinity: SessionAffinity::None,
        session_affinity_timeout_s: None,
        internal_traffic_policy: InternalTrafficPolicy::Cluster,
        traffic_distribution: None,
        ip_families: vec![],
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
    }
}

pub(crate) fn pod(pod: &str) -> PodKey {
    PodKey { namespace: name("shop"), name: pod.to_owned() }
}

pub(crate) fn shard(pods: &[&str]) -> Shard {
    let backend = |p: &&str| {
        let endpoint = Endpoint {
            id: endpoint_id(p),
            address: "10.1.0.1".parse().unwrap(),
            ports: BTreeMap::from([(name("http"), 8080)]),
            ready: true,
            locality: Locality::default(),
            spiffe_id: None,
            inbound_port: Some(15008),
            hostname: None,
            network: None,
        };
        (endpoint.id.clone(), Backend { endpoint, pod: Some(pod(p)) })
    };
    Shard {
        export: Export { spec: Ok(spec()), importers: None, created: Millis(0) },
        backends: pods.iter().map(backend).collect(),
        notes: vec![],
        generation: Some(3),
    }
}

pub(crate) fn catalog(shards: &[(&str, Shard)]) -> Arc<Catalog> {
    let shards = shards.iter().map(|(service, shard)| (name(service), Arc::new(shard.clone())));
    Arc::new(Catalog { shards: shards.collect(), interest: Arc::new(BTreeSet::from([name("shop")])) })
}

pub(crate) fn peer(cluster: &str) -> ViewItem {
    ViewItem::Peer(Arc::new(Peer {
        id: ClusterId(2),
        name: name(cluster),
        trust_domain: name(&format!("{cluster}.fed")),
        bundle: Some(Arc::new(bundle(&format!("{cluster}.fed")))),
        network: name(cluster),
        gateways: Arc::default(),
        probes: Arc::default(),
        exports_to_us: true,
        imports_from_us: false,
        standing: Standing::Live,
    }))
}

pub(crate) fn held(index: u64, items: Vec<ViewItem>) -> Held {
    let key = |item: &ViewItem| match item {
        ViewItem::Import(i) => ViewKey::Import(i.service.clone()),
        ViewItem::Export(e) => ViewKey::Export(e.service.clone()),
        ViewItem::Peer(p) => ViewKey::Peer(p.name.clone()),
    };
    let items = items.into_iter().map(|i| (key(&i), i)).collect();
    let revision = Revision { generation: 1, index };
    Held { origin: Origin::Store, revision, scope: vec![], view: View { items } }
}

pub(crate) fn exported(service: &str, importers: &[&str]) -> ViewItem {
    let importers = importers.iter().map(|i| name(i)).collect();
    ViewItem::Export(Arc::new(ExportStatus {
        service: name(service),
        ready: Ok(()),
        conflicts: vec![],
        importers,
    }))
}

pub(crate) struct World {
    pub(crate) held: Held,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) verdicts: Verdicts,
    _directory: tempfile::TempDir,
    addresses: Addresses,
}

impl World {
    pub(crate) fn new(held: Held, catalog: Arc<Catalog>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("addresses");
        let addresses = Addresses::open(&path, "127.9.0.0/24".parse().unwrap()).unwrap();
        World { held, catalog, verdicts: Verdicts::new(), _directory: directory, addresses }
    }

    pub(crate) fn make(&mut self, before: &Common) -> Common {
        self.addresses.assign(addressed(&self.held)).unwrap();
        let (own, addresses) = (own(), &self.addresses);
        let World { held, catalog, verdicts, .. } = &*self;
        Common::make(&Inputs { own: &own, held, catalog, verdicts, addresses }, before)
    }
}

fn tiers(import: &Import) -> Vec<(&str, Tier)> {
    import.candidates.iter().map(|c| (c.cluster.as_str(), c.tier)).collect()
}

#[test]
fn a_lane_that_is_down_is_avoided_and_comes_back() {
    let local = direct("east", Tier::Local);
    let start = import(
        "shop/web",
        vec![local, direct("edge", Tier::Remote), gateway_candidate("west", Tier::Remote)],
    );
    let verdicts =
        |edge| Verdicts::from([(name("edge"), (edge, None)), (name("east"), (LaneVerdict::Down, None))]);
    let avoided = avoid(&start, &verdicts(LaneVerdict::Down));
    let expected = [("east", Tier::Local), ("west", Tier::Remote), ("edge", Tier::Avoided)];
    assert_eq!(tiers(&avoided), expected, "and local ones are local whatever a probe says");
    assert_eq!(avoid(&avoided, &verdicts(LaneVerdict::Up)), start);
    assert!(Arc::ptr_eq(&avoid(&start, &Verdicts::new()), &start), "nothing known changes nothing");
}

#[test]
fn each_proxy_gets_its_part_and_nothing_when_that_did_not_change() {
    let web = ViewItem::Import(import("shop/web", vec![direct("west", Tier::Remote)]));
    let view = held(1, vec![web.clone(), exported("shop/cart", &["west"]), peer("west")]);
    let mut world = World::new(
        view,
        catalog(&[("shop/cart", shard(&["cart-0", "cart-1"])), ("shop/x", shard(&["x-0"]))]),
    );
    let first = world.make(&Common::default());
    let whole = sidecar(&first, Some(&pod("cart-0")));
    let keys: Vec<ItemKey> = whole.keys().cloned().collect();
    let peers = [ItemKey::Peer(name("east")), ItemKey::Peer(name("west"))];
    let mut expected = vec![ItemKey::Outbound(name("shop/web")), ItemKey::Inbound(name("shop/cart"))];
    expected.extend(peers.clone());
    assert_eq!(keys, expected);
    let Item::Inbound(inbound) = &whole[&ItemKey::Inbound(name("shop/cart"))] else { panic!() };
    assert_eq!(inbound.importers, BTreeSet::from([name("east"), name("west")]));
    assert_eq!(inbound.ports[0].targets.len(), 1, "its own pod and no other");
    let at_gateway = gateway(&first);
    let mut expected = vec![ItemKey::Inbound(name("shop/cart")), ItemKey::Inbound(name("shop/x"))];
    expected.extend(peers);
    assert_eq!(at_gateway.keys().cloned().collect::<Vec<_>>(), expected);
    assert_eq!(sidecar(&first, None).len(), 3, "a client alone");

    // The same again at a later revision, and a change that is another pod's.
    world.held = held(2, vec![web, exported("shop/cart", &["west"]), peer("west")]);
    world.catalog =
        catalog(&[("shop/cart", shard(&["cart-0", "cart-1"])), ("shop/x", shard(&["x-0", "x-1"]))]);
    let second = world.make(&first);
    assert_eq!(delta(&whole, &sidecar(&second, Some(&pod("cart-0")))), (vec![], vec![]));
    let (upserts, deletes) = delta(&at_gateway, &gateway(&second));
    assert_eq!((upserts.len(), deletes), (1, vec![]));
    assert!(Arc::ptr_eq(&first.outbound[&name("shop/web")], &second.outbound[&name("shop/web")]));

    // Un-exporting bites at once, whatever the view still says.
    world.catalog = catalog(&[("shop/x", shard(&["x-0"]))]);
    let third = world.make(&second);
    let (upserts, deletes) = delta(&whole, &sidecar(&third, Some(&pod("cart-0"))));
    assert_eq!((upserts, deletes), (vec![], vec![ItemKey::Inbound(name("shop/cart"))]));
}
