//! Every check can fail: each broken state or view is noticed by the property that it breaks.

use super::{check, check_view};
use crate::identity::ClusterId;
use crate::name::Namespace;
use crate::report::Outcome;
use crate::state::{Cluster, Lane, LaneVerdict, State};
use crate::testing::{World, bundle, endpoint, gateway, http, key, name, put, put_endpoints};
use crate::time::Millis;
use crate::view::{Import, Path, Tier, View, ViewItem, ViewKey};
use std::sync::Arc;

/// What is noticed, and what was done.
type Damage<'a, T> = (&'a str, &'a dyn Fn(&mut T));

fn world() -> World {
    let mut world = World::of(&["east", "west"]);
    let doors = crate::command::CatalogChange::PutGateways { gateways: vec![gateway("west", 1, 1)] };
    world.put(
        "west",
        vec![doors, put("shop/cart", http()), put_endpoints("shop/cart", vec![endpoint("west", 1)])],
    );
    world.put("east", vec![put("shop/cart", http()), put_endpoints("shop/cart", vec![endpoint("east", 1)])]);
    world
}

fn cluster(state: &mut State, id: u64, change: impl FnOnce(&mut Cluster)) {
    change(Arc::make_mut(state.clusters.get_mut(&ClusterId(id)).unwrap()));
}

#[test]
fn a_broken_state_is_noticed() {
    let broken: [Damage<'_, State>; 10] = [
        ("index by_name", &|s| s.by_name.clear()),
        ("index by_trust_domain", &|s| s.by_trust_domain.clear()),
        ("index exported", &|s| s.exported.clear()),
        ("shop/cart", &|s| cluster(s, 1, |c| c.exports.namespaces.clear())),
        ("cluster east", &|s| {
            let lane = Lane { verdict: LaneVerdict::Up, since: Millis(0), rtt_us: None };
            cluster(s, 1, |c| c.lanes.extend([(ClusterId(9), lane)]));
        }),
        ("next_cluster", &|s| s.meta.next_cluster = 1),
        ("next_observed", &|s| s.meta.next_observed = 1),
        ("cluster east", &|s| cluster(s, 1, |c| c.bundle = Some(Arc::new(bundle("west", 1))))),
        ("shop/cart", &|s| {
            let shard = Arc::make_mut(s.shards.get_mut(&(key("shop/cart"), ClusterId(2))).unwrap());
            shard.endpoints.insert(crate::testing::endpoint_id(1), Arc::new(endpoint("east", 1)));
        }),
        ("shop/cart", &|s| s.meta.limits.endpoints = 0),
    ];
    let sound = world().state;
    assert_eq!(check(&sound), []);
    for (place, (subject, damage)) in broken.iter().enumerate() {
        let mut state = sound.clone();
        damage(&mut state);
        let notes = check(&state);
        assert!(notes.iter().any(|note| note.subject == *subject), "{place}: {notes:?}");
    }
}

fn import(view: &mut View, change: impl FnOnce(&mut Import)) {
    match view.items.get_mut(&ViewKey::Import(key("shop/cart"))) {
        Some(ViewItem::Import(import)) => change(Arc::make_mut(import)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_broken_view_is_noticed() {
    let world = world();
    let east = world.id("east");
    let (sound, report) = crate::compute::compute(&world.state, east);
    assert_eq!(check_view(&world.state, east, &sound, &report), []);
    let broken: [Damage<'_, View>; 7] = [
        ("are not the report's chosen ones", &|v| import(v, |i| drop(i.candidates.pop()))),
        ("out of order", &|v| import(v, |i| i.candidates.reverse())),
        ("wrong tier", &|v| import(v, |i| i.candidates[0].tier = Tier::Remote)),
        ("share", &|v| {
            import(v, |i| match &mut i.candidates[1].path {
                Path::Gateway { weights, .. } => weights.values_mut().for_each(|share| *share += 1),
                Path::Direct { .. } => panic!("not by a gateway"),
            });
        }),
        ("no bundle of west", &|v| drop(v.items.remove(&ViewKey::Peer(name("west"))))),
        ("does not export it", &|v| import(v, |i| i.candidates[1].cluster = name("idle"))),
        ("not of cluster west", &|v| {
            import(v, |i| match &mut i.candidates[1].path {
                Path::Gateway { identities, .. } => identities.extend(endpoint("east", 1).spiffe_id),
                Path::Direct { .. } => panic!("not by a gateway"),
            });
        }),
    ];
    for (sentence, damage) in broken {
        let mut view = sound.clone();
        damage(&mut view);
        let notes = check_view(&world.state, east, &view, &report);
        assert!(notes.iter().any(|note| note.sentence.contains(sentence)), "{sentence}: {notes:?}");
    }
    let mut partial = report.clone();
    partial
        .services
        .get_mut(&key("shop/cart"))
        .unwrap()
        .decisions
        .retain(|d| matches!(d.outcome, Outcome::Chosen(_)));
    assert!(!check_view(&world.state, east, &sound, &partial).is_empty(), "a place without a decision");
    let mut narrow = world.state.clone();
    cluster(&mut narrow, 1, |c| c.interest = Arc::new([Namespace::parse("bank").unwrap()].into()));
    assert!(!check_view(&narrow, east, &sound, &report).is_empty(), "an import that nobody wants");
    assert!(!check_view(&world.state, ClusterId(99), &sound, &report).is_empty(), "a stranger's view");
}
