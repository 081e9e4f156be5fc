use super::*;
use crate::config::Common;
use crate::config::tests::{World, catalog, exported, gateway_candidate, held, import, name, peer, shard};
use crate::desired::Edition;
use sealane_core::command::{Refusal, RefusalCode};
use sealane_core::view::{Conflict, ConflictField, ExportStatus, Tier, ViewItem, ViewKey};
use std::sync::Arc;

/// 2026-01-02T03:04:05Z.
const NOW: Millis = Millis(1_767_323_045_000);

fn sources(world: &mut World, refused: &BTreeMap<ServiceKey, Refusal>) -> Sources {
    let common = Arc::new(world.make(&Common::default()));
    Sources {
        common,
        exports: world.held.items.clone(),
        refused: Arc::new(refused.clone()),
        confirmed: Edition::all(&world.catalog.shards),
    }
}

fn make(
    world: &mut World,
    refused: &BTreeMap<ServiceKey, Refusal>,
    transitions: &Transitions,
    now: Millis,
) -> Output {
    let mut desired = Desired::default();
    let touched = desired.follow(sources(world, refused), transitions, now).unwrap();
    assert!(touched.iter().eq(desired.output().keys()), "all of it is new");
    desired.output
}

fn world() -> World {
    let web = ViewItem::Import(import("shop/web", vec![gateway_candidate("west", Tier::Remote)]));
    let elsewhere = ViewItem::Import(import("other/web", vec![]));
    World::new(
        held(1, vec![web, elsewhere, exported("shop/cart", &["west"]), peer("west")]),
        catalog(&[("shop/cart", shard(&["cart-0"]))]),
    )
}

const IMPORT: &str = "\
# Written by sealane-agent. Changes are lost.
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceImport
metadata:
  name: web
  namespace: shop
  labels:
    app.kubernetes.io/managed-by: sealane-agent
spec:
  type: ClusterSetIP
  ports:
  - name: http
    protocol: TCP
    port: 80
  ips:
  - \"127.9.0.X\"
  ipFamilies:
  - IPv4
  sessionAffinity: None
  internalTrafficPolicy: Cluster
status:
  clusters:
  - cluster: west
  conditions:
  - type: Ready
    status: \"True\"
    lastTransitionTime: \"2026-01-02T03:04:05Z\"
    reason: Ready
    message: 1 places to go to from 1 clusters
";

const SLICE: &str = "\
# Written by sealane-agent. Changes are lost.
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
addressType: IPv4
endpoints:
- addresses:
  - \"10.9.0.1\"
  conditions:
    ready: true
metadata:
  annotations:
    sealane.dev/path: gateway
  labels:
    endpointslice.kubernetes.io/managed-by: sealane-agent
    multicluster.kubernetes.io/service-name: web
    multicluster.kubernetes.io/source-cluster: west
  name: NAME
  namespace: shop
ports:
- name: http
  port: 15443
  protocol: TCP
";

const EXPORT: &str = "\
# Written by sealane-agent. Changes are lost.
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceExport
metadata:
  name: cart
  namespace: shop
status:
  conditions:
  - type: Valid
    status: \"True\"
    observedGeneration: 3
    lastTransitionTime: \"2026-01-02T03:04:05Z\"
    reason: Valid
    message: Service shop/cart can be exported
  - type: Ready
    status: \"True\"
    observedGeneration: 3
    lastTransitionTime: \"2026-01-02T03:04:05Z\"
    reason: Exported
    message: \"other clusters that import it: 1\"
  - type: Conflict
    status: \"False\"
    observedGeneration: 3
    lastTransitionTime: \"2026-01-02T03:04:05Z\"
    reason: NoConflicts
    message: all exports of this service agree
";

#[test]
fn the_output_as_a_whole() {
    let out = make(&mut world(), &BTreeMap::new(), &Transitions::default(), NOW);
    let paths: Vec<&String> = out.keys().collect();
    assert_eq!(paths.len(), 3, "nothing for a namespace that does not exist: {paths:?}");
    let slice = paths[0].strip_prefix("endpointslices/shop.").unwrap().strip_suffix(".yaml").unwrap();
    assert_eq!(out[paths[0]], SLICE.replace("NAME", slice));
    assert_eq!(out["serviceexports/shop.cart.yaml"], EXPORT);
    let text = &out["serviceimports/shop.web.yaml"];
    let ip = text.lines().find(|l| l.contains("127.9.0.")).unwrap();
    assert_eq!(text.replace(ip, "  - \"127.9.0.X\""), IMPORT);
}

#[test]
fn the_time_of_a_condition_moves_with_its_status_alone() {
    let path = "serviceexports/shop.cart.yaml";
    let mut world = world();
    let mut transitions = Transitions::default();
    let first = make(&mut world, &BTreeMap::new(), &transitions, NOW);
    first.iter().for_each(|(path, text)| transitions.learn(path, text));
    let later = NOW.plus(3_600_000);
    assert_eq!(make(&mut world, &BTreeMap::new(), &transitions, later), first);
    let refusal = Refusal { code: RefusalCode::Forbidden, message: "the grant says no".to_owned() };
    let refused = BTreeMap::from([(name("shop/cart"), refusal)]);
    let text = make(&mut world, &refused, &transitions, later)[path].clone();
    assert!(text.contains("reason: Failed\n    message: the grant says no\n"), "{text}");
    assert_eq!((text.matches("T03:04:05Z").count(), text.matches("T04:04:05Z").count()), (2, 1), "{text}");
}

#[test]
fn conflicts_name_their_reasons_and_an_unconfirmed_export_waits() {
    let mut world = world();
    let conflict = |field, message: &str| Conflict { field, message: message.to_owned() };
    let conflicts = vec![conflict(ConflictField::Port, "Ports."), conflict(ConflictField::Type, "Type.")];
    let status = ExportStatus { service: name("shop/cart"), ready: Ok(()), conflicts, importers: [].into() };
    world.held = held(2, vec![ViewItem::Export(Arc::new(status))]);
    let path = "serviceexports/shop.cart.yaml";
    let text = make(&mut world, &BTreeMap::new(), &Transitions::default(), NOW)[path].clone();
    assert!(text.contains("reason: PortConflict,TypeConflict\n    message: Ports. Type.\n"), "{text}");
    world.held = held(3, vec![]);
    let text = make(&mut world, &BTreeMap::new(), &Transitions::default(), NOW)[path].clone();
    assert!(text.contains("status: Unknown") && text.contains("reason: Pending"), "{text}");
    assert!(!text.contains("Conflict"), "{text}");
}

#[test]
fn what_follows_is_what_is_made_anew_and_only_what_changed_is_touched() {
    let mut world = world();
    let transitions = Transitions::default();
    let mut desired = Desired::default();
    let none = BTreeMap::new();
    let follow = |desired: &mut Desired, world: &mut World, refused: &BTreeMap<ServiceKey, Refusal>| {
        let common = Arc::new(world.make(&desired.sources.common));
        let sources = Sources {
            common,
            exports: world.held.items.clone(),
            refused: Arc::new(refused.clone()),
            confirmed: Edition::all(&world.catalog.shards),
        };
        let touched = desired.follow(sources, &transitions, NOW).unwrap();
        assert_eq!(*desired.output(), make(world, refused, &transitions, NOW));
        touched.into_iter().collect::<Vec<_>>()
    };
    assert_eq!(follow(&mut desired, &mut world, &none).len(), 3);
    world.held.revision.index += 1;
    assert!(follow(&mut desired, &mut world, &none).is_empty(), "a revision alone changes no file");
    let refusal = Refusal { code: RefusalCode::Forbidden, message: "no".to_owned() };
    let refused = BTreeMap::from([(name("shop/cart"), refusal)]);
    assert_eq!(follow(&mut desired, &mut world, &refused), ["serviceexports/shop.cart.yaml"]);
    assert_eq!(follow(&mut desired, &mut world, &none), ["serviceexports/shop.cart.yaml"]);
    let web = import("shop/web", vec![]);
    world.held.items.insert(ViewKey::Import(name("shop/web")), ViewItem::Import(web));
    assert_eq!(follow(&mut desired, &mut world, &none).len(), 2, "its slice goes, and its status changes");
    let catalog = Arc::make_mut(&mut world.catalog);
    catalog.interest = Arc::new(BTreeSet::from([name("shop"), name("other")]));
    let touched = follow(&mut desired, &mut world, &none);
    assert!(touched.contains(&"serviceimports/other.web.yaml".to_owned()), "{touched:?}");
    catalog_without_exports(&mut world);
    assert_eq!(follow(&mut desired, &mut world, &none), ["serviceexports/shop.cart.yaml"]);
}

fn catalog_without_exports(world: &mut World) {
    Arc::make_mut(&mut world.catalog).shards.clear();
}
