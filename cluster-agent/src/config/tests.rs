use super::*;
use crate::addresses::Addresses;
use crate::catalog::{Backend, Shard, endpoint_id};
use crate::index::{PodKey, Selector};
use crate::view::Origin;
use proptest::prelude::*;
use sealane_core::endpoint::{Endpoint, GatewayHost, Locality};
use sealane_core::identity::ClusterId;
use sealane_core::service::{Export, ExportSpec, InternalTrafficPolicy, Port, Protocol, SessionAffinity};
use sealane_core::time::Millis;
use sealane_core::view::{Candidate, ExportStatus, Path, Peer, Standing};
use std::collections::BTreeMap;

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
        unreached: BTreeMap::new(),
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
        (endpoint.id.clone(), Backend { endpoint, pod: Some(pod(p)), node: None })
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
    Held { origin: Origin::Store, revision, scope: vec![], items }
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

    /// What is made next; the former one when nothing differs.
    pub(crate) fn make(&mut self, before: &Common) -> Common {
        let own = own();
        let World { held, catalog, verdicts, addresses, .. } = self;
        let verdicts = Arc::new(verdicts.clone());
        let inputs = Inputs { own: &own, held, catalog, verdicts: &verdicts };
        let mut changed = Changed::since(before, &inputs);
        changed.readdressed(addresses.follow(changed.addressed(held)).unwrap());
        let of = |service: &ServiceKey| Given::so_far(addresses.of(service).into_iter().collect());
        let next = before.next(&inputs, &changed, of).unwrap_or_else(|| before.clone());
        let all = Changed::since(&Common::default(), &inputs);
        let anew = Common::default().next(&inputs, &all, of).unwrap_or_default();
        assert_eq!(next.outbound, anew.outbound, "what follows is what is made anew");
        assert_eq!((&next.inbound, &next.peers), (&anew.inbound, &anew.peers));
        next
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
fn own_endpoints_are_the_catalog_s_whatever_the_store_has_heard_of() {
    let stale = import("shop/web", vec![direct("east", Tier::Local), direct("west", Tier::Remote)]);
    let addresses = |import: &Import| -> Vec<(String, EndpointId)> {
        let one = |c: &Candidate| match &c.path {
            Path::Direct { id, .. } => (c.cluster.to_string(), id.clone()),
            Path::Gateway { .. } => panic!("one network"),
        };
        import.candidates.iter().map(one).collect()
    };
    let west = ("west".to_owned(), endpoint_id("west"));
    let here = |pods: &[&str]| at_home(&stale, &own(), Some(&Arc::new(shard(pods))));
    let replaced = here(&["web-2"]);
    assert_eq!(addresses(&replaced), [("east".to_owned(), endpoint_id("web-2")), west.clone()]);
    assert_eq!(addresses(&here(&[])), [west], "and none is none");
    assert!(Arc::ptr_eq(&at_home(&replaced, &own(), Some(&Arc::new(shard(&["web-2"])))), &replaced));
    assert!(Arc::ptr_eq(&at_home(&stale, &own(), None), &stale), "what is not read yet takes nothing away");
    let theirs = import("shop/web", vec![direct("west", Tier::Remote)]);
    let mine = Arc::new(shard(&["web-2"]));
    assert!(
        Arc::ptr_eq(&at_home(&theirs, &own(), Some(&mine)), &theirs),
        "the store does not count our export"
    );
}

#[test]
fn each_proxy_gets_its_part_and_nothing_when_that_did_not_change() {
    let web = ViewItem::Import(import("shop/web", vec![direct("west", Tier::Remote)]));
    let view = held(1, vec![web.clone(), exported("shop/cart", &["west"]), peer("west")]);
    let mut world = World::new(
        view,
        catalog(&[("shop/cart", shard(&["cart-0", "cart-1"])), ("shop/x", shard(&["x-0"]))]),
    );
    let first = Arc::new(world.make(&Common::default()));
    let (cart, nobody) = (Role::Sidecar(Some(pod("cart-0"))), Role::Sidecar(None));
    let mut sidecar = Told::default();
    let (whole, deletes) = sidecar.tell(&cart, &first);
    let peers = [ItemKey::Peer(name("east")), ItemKey::Peer(name("west"))];
    let mut expected = vec![ItemKey::Outbound(name("shop/web")), ItemKey::Inbound(name("shop/cart"))];
    expected.extend(peers.clone());
    assert_eq!((keys(&whole), deletes), (expected, vec![]));
    let Item::Inbound(inbound) = &whole[1] else { panic!() };
    assert_eq!(inbound.importers, BTreeSet::from([name("east"), name("west")]));
    assert_eq!(inbound.ports[0].targets.len(), 1, "its own pod and no other");
    let mut gateway = Told::default();
    let mut expected = vec![ItemKey::Inbound(name("shop/cart")), ItemKey::Inbound(name("shop/x"))];
    expected.extend(peers);
    assert_eq!(keys(&gateway.tell(&Role::Gateway, &first).0), expected);
    assert_eq!(Told::default().tell(&nobody, &first).0.len(), 3, "a client alone");

    // The same again at a later revision, and a change that is another pod's.
    world.held = held(2, vec![web, exported("shop/cart", &["west"]), peer("west")]);
    world.catalog =
        catalog(&[("shop/cart", shard(&["cart-0", "cart-1"])), ("shop/x", shard(&["x-0", "x-1"]))]);
    let second = Arc::new(world.make(&first));
    assert_eq!(sidecar.tell(&cart, &second), (vec![], vec![]));
    let (upserts, deletes) = gateway.tell(&Role::Gateway, &second);
    assert_eq!((keys(&upserts), deletes), (vec![ItemKey::Inbound(name("shop/x"))], vec![]));
    assert!(Arc::ptr_eq(
        &first.outbound[&name::<ServiceKey>("shop/web")],
        &second.outbound[&name::<ServiceKey>("shop/web")]
    ));

    // Its own pod is replaced by another, and comes back.
    world.catalog = catalog(&[("shop/cart", shard(&["cart-1"])), ("shop/x", shard(&["x-0"]))]);
    let third = Arc::new(world.make(&second));
    assert_eq!(sidecar.tell(&cart, &third), (vec![], vec![ItemKey::Inbound(name("shop/cart"))]));
    let (upserts, deletes) = sidecar.tell(&cart, &second);
    assert_eq!((keys(&upserts), deletes), (vec![ItemKey::Inbound(name("shop/cart"))], vec![]));

    // Un-exporting bites at once, whatever the view still says.
    world.catalog = catalog(&[("shop/x", shard(&["x-0"]))]);
    let fourth = Arc::new(world.make(&second));
    assert_eq!(sidecar.tell(&cart, &fourth), (vec![], vec![ItemKey::Inbound(name("shop/cart"))]));
}

fn keys(items: &[Item]) -> Vec<ItemKey> {
    let key = |item: &Item| match item {
        Item::Outbound(o) => ItemKey::Outbound(o.import.service.clone()),
        Item::Inbound(i) => ItemKey::Inbound(i.service.clone()),
        Item::Peer(p) => ItemKey::Peer(p.name.clone()),
    };
    items.iter().map(key).collect()
}

#[test]
fn a_lane_that_turns_reaches_every_import_behind_it() {
    let items = vec![ViewItem::Import(import("shop/web", vec![direct("west", Tier::Remote)])), peer("west")];
    let mut world = World::new(held(1, items), catalog(&[]));
    let up = world.make(&Common::default());
    world.verdicts = Verdicts::from([(name("west"), (LaneVerdict::Down, None))]);
    let down = world.make(&up);
    assert_eq!(tiers(&down.outbound[&name::<ServiceKey>("shop/web")].import), [("west", Tier::Avoided)]);
    world.verdicts = Verdicts::from([(name("west"), (LaneVerdict::Up, None))]);
    let again = world.make(&down);
    assert_eq!(tiers(&again.outbound[&name::<ServiceKey>("shop/web")].import), [("west", Tier::Remote)]);
}

/// What changes in a cluster's world.
#[derive(Debug, Clone)]
enum Step {
    Import(u8, Option<(bool, u8)>),
    Standing(u8, Option<u8>),
    Export(u8, Option<u8>),
    Peer(u8, bool),
    Lane(u8, bool),
}

fn step() -> impl Strategy<Value = Step> {
    let some = |most: u8| proptest::option::of(0..most);
    prop_oneof![
        (0u8..5, proptest::option::of((any::<bool>(), 0u8..3))).prop_map(|(n, made)| Step::Import(n, made)),
        (0u8..5, some(3)).prop_map(|(n, importers)| Step::Standing(n, importers)),
        (0u8..5, some(3)).prop_map(|(n, pods)| Step::Export(n, pods)),
        (0u8..3, any::<bool>()).prop_map(|(n, there)| Step::Peer(n, there)),
        (0u8..3, any::<bool>()).prop_map(|(n, up)| Step::Lane(n, up)),
    ]
}

fn take(world: &mut World, step: Step) {
    let service = |n: u8| format!("shop/s{n}");
    let cluster = |n: u8| format!("west-{n}");
    let mut put = |key: ViewKey, item: Option<ViewItem>| match item {
        Some(item) => drop(world.held.items.insert(key, item)),
        None => drop(world.held.items.remove(&key)),
    };
    match step {
        Step::Import(n, made) => {
            let made = made.map(|(headless, candidates)| {
                let candidates = (0..candidates).map(|n| direct(&cluster(n), Tier::Remote)).collect();
                let mut made = Import::clone(&import(&service(n), candidates));
                if headless {
                    made.service_type = ServiceType::Headless;
                }
                ViewItem::Import(Arc::new(made))
            });
            put(ViewKey::Import(name(&service(n))), made);
        }
        Step::Standing(n, importers) => {
            let made = importers.map(|i| exported(&service(n), &[&cluster(i)]));
            put(ViewKey::Export(name(&service(n))), made);
        }
        Step::Peer(n, there) => put(ViewKey::Peer(name(&cluster(n))), there.then(|| peer(&cluster(n)))),
        Step::Export(n, pods) => {
            let shards = &mut Arc::make_mut(&mut world.catalog).shards;
            match pods {
                Some(pods) => {
                    let pods: Vec<String> = (0..=pods).map(|p| format!("cart-{p}")).collect();
                    let pods: Vec<&str> = pods.iter().map(String::as_str).collect();
                    drop(shards.insert(name(&service(n)), Arc::new(shard(&pods))));
                }
                None => drop(shards.remove(&name::<ServiceKey>(&service(n)))),
            }
        }
        Step::Lane(n, up) => {
            let verdict = if up { LaneVerdict::Up } else { LaneVerdict::Down };
            world.verdicts.insert(name(&cluster(n)), (verdict, None));
        }
    }
    world.held.revision.index += 1;
}

/// A proxy that keeps what it is told.
struct Kept {
    role: Role,
    told: Told,
    items: BTreeMap<ItemKey, Item>,
}

impl Kept {
    fn new(role: Role) -> Self {
        Kept { role, told: Told::default(), items: BTreeMap::new() }
    }

    fn tell(&mut self, common: &Arc<Common>) {
        let (upserts, deletes) = self.told.tell(&self.role, common);
        for item in upserts {
            let key = keys(std::slice::from_ref(&item)).remove(0);
            assert_ne!(self.items.insert(key, item.clone()), Some(item), "what did not change is not told");
        }
        for key in deletes {
            assert!(self.items.remove(&key).is_some(), "{key:?} was never told");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// `World::make` compares what follows with what is made anew; here what proxies keep is compared too, also of
    /// those who are slow and miss some.
    #[test]
    fn whatever_changes_every_proxy_ends_up_with_its_whole_part(
        steps in proptest::collection::vec((step(), any::<bool>()), 1..24),
    ) {
        let roles = [Role::Gateway, Role::Sidecar(None), Role::Sidecar(Some(pod("cart-1")))];
        let mut world = World::new(held(1, vec![]), catalog(&[]));
        let mut common = Arc::new(Common::default());
        let mut proxies = roles.clone().map(Kept::new);
        for (step, told) in steps {
            take(&mut world, step);
            common = Arc::new(world.make(&common));
            if told {
                proxies.iter_mut().for_each(|proxy| proxy.tell(&common));
            }
        }
        for (mut proxy, role) in proxies.into_iter().zip(roles) {
            proxy.tell(&common);
            let mut anew = Kept::new(role);
            anew.tell(&common);
            prop_assert_eq!(proxy.items, anew.items);
        }
    }
}
