use super::affected;
use crate::check::{check, check_view};
use crate::command::{CatalogChange, Command};
use crate::compute::{Computation, compute};
use crate::events::Events;
use crate::identity::ClusterId;
use crate::state::{LaneVerdict, State};
use crate::testing::histories::{Step, steps};
use crate::testing::{
    World, bundle, endpoint, gateway, http, interest, key, lanes, name, put, put_endpoints,
};
use crate::view::{Standing, View, ViewKey};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// The views as a publisher holds them: brought forward by `affected` alone.
struct Held(BTreeMap<ClusterId, View>);

impl Held {
    fn of(state: &State) -> Self {
        let computation = Computation::new(state);
        Held(state.clusters.keys().map(|id| (*id, computation.view(*id))).collect())
    }

    fn forward(&mut self, before: &State, after: &State, events: &Events) {
        self.0.retain(|id, _| after.clusters.contains_key(id));
        for id in after.clusters.keys() {
            self.0.entry(*id).or_default();
        }
        let computation = Computation::new(after);
        for (cluster, key) in affected(before, after, events) {
            let items = &mut self.0.get_mut(&cluster).unwrap().items;
            match computation.item(cluster, &key) {
                Some(item) => items.insert(key, item),
                None => items.remove(&key),
            };
        }
    }
}

/// Runs a history; after every `batch` commands the held views must be the full ones, and nothing may be amiss.
fn hold(steps: &[Step], batch: usize) -> Result<(), TestCaseError> {
    let mut world = World::busy();
    let (mut held, mut last): (_, Option<Command>) = (Held::of(&world.state), None);
    let (mut before, mut events, mut pending) = (world.state.clone(), Events::default(), 0);
    for step in steps {
        // Joining makes its token on the way, which touches no view.
        let Some(command) = world.next(step, last.as_ref()) else { continue };
        let earlier = world.state.clone();
        let applied = world.run(command.principal.clone(), command.action.clone());
        prop_assert!(
            world.state.meta.revision > earlier.meta.revision && world.state.meta.now >= earlier.meta.now
        );
        no_more_changed_than_told(&earlier, &world.state, &applied.dirty)?;
        if matches!(step, Step::Again) {
            once_only(&earlier, &world.state)?;
        }
        events.merge(applied.events);
        (last, pending) = (Some(command), pending + 1);
        if pending >= batch {
            held.forward(&before, &world.state, &events);
            full(&held, &world.state)?;
            (before, events, pending) = (world.state.clone(), Events::default(), 0);
        }
    }
    let rebuilt = State::from_records(world.state.records()).unwrap();
    prop_assert_eq!(&rebuilt, &world.state);
    Ok(())
}

fn full(held: &Held, state: &State) -> Result<(), TestCaseError> {
    prop_assert_eq!(check(state), vec![]);
    prop_assert_eq!(held.0.len(), state.clusters.len());
    for (id, view) in &held.0 {
        let (whole, report) = compute(state, *id);
        prop_assert_eq!(view, &whole, "the held view of {} is stale", id);
        prop_assert_eq!(check_view(state, *id, &whole, &report), vec![]);
    }
    Ok(())
}

/// Writing the dirty records over the earlier ones gives the later state: what the store does.
fn no_more_changed_than_told(
    before: &State,
    after: &State,
    dirty: &BTreeSet<crate::state::RecordKey>,
) -> Result<(), TestCaseError> {
    let mut records: BTreeMap<_, _> = before.records().map(|record| (record.key(), record)).collect();
    for key in dirty {
        match after.record(key) {
            Some(record) => records.insert(key.clone(), record),
            None => records.remove(key),
        };
    }
    prop_assert_eq!(&State::from_records(records.into_values()).unwrap(), after);
    Ok(())
}

/// A command that came again changed nothing but the revision and the time.
fn once_only(before: &State, after: &State) -> Result<(), TestCaseError> {
    let mut same = after.clone();
    same.meta.revision = before.meta.revision;
    same.meta.now = before.meta.now;
    prop_assert_eq!(&same, before);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_held_is_what_a_full_computation_gives(steps in steps(), batch in 1usize..4) {
        hold(&steps, batch)?;
    }

    #[test]
    fn the_same_history_gives_the_same_state(steps in steps()) {
        let (mut world, mut last) = (World::busy(), None);
        for step in &steps {
            if let Some(command) = world.next(step, last.as_ref()) {
                world.run(command.principal.clone(), command.action.clone());
                last = Some(command);
            }
        }
        // Another replica; half-way it starts again from its records, as from a snapshot.
        let mut other = State::empty();
        for (place, (index, command)) in world.log.iter().enumerate() {
            if place == world.log.len() / 2 {
                other = State::from_records(other.records()).unwrap();
            }
            other.apply(*index, command).unwrap();
        }
        prop_assert_eq!(other, world.state);
    }
}

fn set(world: &World, items: &[(&str, ViewKey)]) -> BTreeSet<(ClusterId, ViewKey)> {
    items.iter().map(|(cluster, key)| (world.id(cluster), key.clone())).collect()
}

/// Four members; west exports `shop/cart`; only east, west and edge have the namespace.
fn shop() -> World {
    let mut world = World::of(&["east", "west", "edge", "idle"]);
    world.put("idle", vec![interest(&[])]);
    let gateways = CatalogChange::PutGateways { gateways: vec![gateway("west", 1, 1)] };
    world.put(
        "west",
        vec![gateways, put("shop/cart", http()), put_endpoints("shop/cart", vec![endpoint("west", 1)])],
    );
    world.put("west", vec![put("shop/till", http())]);
    world
}

fn touched(world: &mut World, cluster: &str, changes: Vec<CatalogChange>) -> BTreeSet<(ClusterId, ViewKey)> {
    let before = world.state.clone();
    let applied = world.applied(cluster, changes);
    affected(&before, &world.state, &applied.events)
}

#[test]
fn an_endpoint_flap_touches_its_importers_and_nothing_else() {
    let mut world = shop();
    let mut flapped = endpoint("west", 1);
    flapped.ready = false;
    let items = touched(&mut world, "west", vec![put_endpoints("shop/cart", vec![flapped])]);
    let cart = ViewKey::Import(key("shop/cart"));
    assert_eq!(items, set(&world, &[("east", cart.clone()), ("west", cart.clone()), ("edge", cart)]));
}

#[test]
fn a_lane_touches_its_reporter_alone_while_the_verdict_stands() {
    let mut world = shop();
    let items = touched(&mut world, "east", vec![lanes(&[("west", LaneVerdict::Down)])]);
    let imports = ["shop/cart", "shop/till"].map(|s| ("east", ViewKey::Import(key(s))));
    assert_eq!(items, set(&world, &imports));
    // Once more, with another round-trip time at most, is no news.
    assert_eq!(touched(&mut world, "east", vec![lanes(&[("west", LaneVerdict::Down)])]), BTreeSet::new());
}

#[test]
fn a_verdict_that_turns_touches_all_who_deal_with_the_cluster() {
    let mut world = shop();
    world.lapse("west");
    let items = touched(&mut world, "east", vec![lanes(&[("west", LaneVerdict::Down)])]);
    let mut expected = Vec::new();
    for importer in ["east", "west", "edge"] {
        expected.extend(["shop/cart", "shop/till"].map(|s| (importer, ViewKey::Import(key(s)))));
    }
    expected.extend(["east", "edge"].map(|c| (c, ViewKey::Peer(name("west")))));
    assert_eq!(items, set(&world, &expected));
}

#[test]
fn an_export_that_goes_takes_its_witness_along() {
    let mut world = shop();
    let only = |importer: &str| crate::service::Export { importers: Some([name(importer)].into()), ..http() };
    world.put("west", vec![put("shop/cart", only("east")), put("shop/till", only("edge"))]);
    world.lapse("west");
    world.put("east", vec![lanes(&[("west", LaneVerdict::Down)])]);
    let west = world.id("west");
    assert_eq!(crate::liveness::verdict(&world.state, west).standing, Standing::Withdrawn);
    // East was the only witness; with its last import from west it has no word any more.
    let items = touched(&mut world, "west", vec![CatalogChange::RemoveExport { service: key("shop/cart") }]);
    assert_eq!(crate::liveness::verdict(&world.state, west).standing, Standing::Suspect);
    assert!(items.contains(&(world.id("edge"), ViewKey::Import(key("shop/till")))));
}

#[test]
fn a_new_bundle_touches_peers_and_no_import() {
    let mut world = shop();
    let items = touched(&mut world, "west", vec![CatalogChange::PutBundle { bundle: bundle("west", 2) }]);
    assert_eq!(items, set(&world, &["east", "edge"].map(|c| (c, ViewKey::Peer(name("west"))))));
}

#[test]
fn a_first_bundle_touches_the_imports_that_waited_for_it() {
    let mut world = shop();
    world.join("late");
    world.open("late", crate::testing::instance(1)).unwrap();
    world.put("late", vec![put("shop/cart", http())]);
    let items = touched(&mut world, "late", vec![CatalogChange::PutBundle { bundle: bundle("late", 1) }]);
    let cart = ViewKey::Import(key("shop/cart"));
    let mut expected: Vec<_> = ["east", "west", "edge"].map(|c| (c, cart.clone())).to_vec();
    expected.extend(["east", "west", "edge"].map(|c| (c, ViewKey::Peer(name("late")))));
    assert_eq!(items, set(&world, &expected));
}

#[test]
fn a_batch_is_recomputed_as_one() {
    let mut events = Events::default();
    let shard = |existed, export| crate::events::ShardEvent { existed, export };
    for (existed, export) in [(false, true), (true, false), (true, true)] {
        let mut next = Events::default();
        next.shards.insert((key("shop/cart"), ClusterId(1)), shard(existed, export));
        next.lanes.insert((ClusterId(1), ClusterId(2)));
        events.merge(next);
    }
    let mut expected = Events::default();
    expected.shards.insert((key("shop/cart"), ClusterId(1)), shard(false, true));
    expected.lanes.insert((ClusterId(1), ClusterId(2)));
    assert_eq!(events, expected);
}

#[test]
fn a_write_that_says_nothing_new_touches_nothing() {
    let mut world = shop();
    let before = world.state.shard(&key("shop/cart"), world.id("west")).unwrap().clone();
    let again = vec![
        put("shop/cart", http()),
        put_endpoints("shop/cart", vec![endpoint("west", 1)]),
        interest(&["shop"]),
    ];
    let applied = world.applied("west", again);
    assert_eq!(applied.events, Events::default());
    assert_eq!(*world.state.shard(&key("shop/cart"), world.id("west")).unwrap(), before);
}
