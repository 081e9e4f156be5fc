//! Sessions, fences, leases, and writing once.

use super::code;
use crate::apply::FENCE_MS;
use crate::command::{Action, CatalogChange, CatalogError, CatalogResult, RefusalCode, Reply, SessionError};
use crate::state::{LaneVerdict, Lease};
use crate::testing::{World, agent, http, instance, key, lanes, name, put, session};
use crate::time::Millis;
use std::collections::BTreeSet;

fn write(world: &mut World, by: u8, sequence: u64, changes: Vec<CatalogChange>) -> Reply {
    let cluster = world.id("east");
    world.run(agent("east"), Action::Catalog { cluster, session: session(by), sequence, changes }).reply
}

fn open(world: &mut World, by: u8) -> Reply {
    let cluster = world.id("east");
    world
        .run(
            agent("east"),
            Action::OpenSession { cluster, session: session(by), instance: instance(1), uid: None },
        )
        .reply
}

fn services(world: &World) -> Vec<String> {
    world.state.services().iter().map(ToString::to_string).collect()
}

#[test]
fn a_write_takes_effect_once() {
    let mut world = World::new();
    world.join("east");
    assert_eq!(open(&mut world, 50), Reply::Session(Ok(())));
    let done = Reply::Catalog(Ok(CatalogResult::default()));
    assert_eq!(write(&mut world, 50, 1, vec![put("shop/cart", http())]), done);
    assert_eq!(write(&mut world, 50, 2, vec![put("shop/till", http())]), done);
    let before = world.state.shards.clone();
    // The last one again, whatever it carries now, is answered and not run.
    assert_eq!(write(&mut world, 50, 2, vec![put("shop/else", http())]), done);
    assert_eq!(
        write(&mut world, 50, 1, vec![put("shop/else", http())]),
        Reply::Catalog(Err(CatalogError::Expired))
    );
    let gap = CatalogError::Gap { expected: 3, got: 5 };
    assert_eq!(write(&mut world, 50, 5, vec![put("shop/else", http())]), Reply::Catalog(Err(gap)));
    assert_eq!(write(&mut world, 50, 0, vec![]), Reply::Catalog(Err(CatalogError::Expired)));
    assert_eq!(world.state.shards, before);
}

#[test]
fn a_late_copy_of_an_older_opening_opens_nothing() {
    let mut world = World::new();
    world.join("east");
    assert_eq!(open(&mut world, 50), Reply::Session(Ok(())));
    assert_eq!(open(&mut world, 51), Reply::Session(Ok(())));
    let before = world.state.clusters.clone();
    let late = SessionError::Fenced { by: instance(1), since_ms: 1 };
    assert_eq!(open(&mut world, 50), Reply::Session(Err(late)));
    assert_eq!(world.state.clusters, before);
    assert_eq!(open(&mut world, 51), Reply::Session(Ok(())), "a copy of the newest is answered as it was");
}

#[test]
fn a_refused_change_is_answered_again_as_it_was() {
    let mut world = World::new();
    world.join("east");
    open(&mut world, 50);
    let bad = vec![
        CatalogChange::PutEndpoints { service: key("shop/none"), endpoints: vec![] },
        put("shop/cart", http()),
    ];
    let first = write(&mut world, 50, 1, bad);
    let Reply::Catalog(Ok(result)) = &first else { panic!("{first:?}") };
    assert_eq!(
        result.refused.iter().map(|(place, r)| (*place, r.code)).collect::<Vec<_>>(),
        [(0, RefusalCode::NotFound)]
    );
    assert_eq!(services(&world), ["shop/cart"]);
    assert_eq!(write(&mut world, 50, 1, vec![]), first);
}

#[test]
fn a_newer_session_shuts_the_older_one_out() {
    let mut world = World::new();
    world.join("east");
    open(&mut world, 50);
    open(&mut world, 51);
    assert_eq!(write(&mut world, 50, 1, vec![]), Reply::Catalog(Err(CatalogError::Fenced)));
    assert_eq!(write(&mut world, 51, 1, vec![]), Reply::Catalog(Ok(CatalogResult::default())));
    // Opening once more under the same id is a retry: the writes so far stand.
    assert_eq!(open(&mut world, 51), Reply::Session(Ok(())));
    assert_eq!(write(&mut world, 51, 2, vec![]), Reply::Catalog(Ok(CatalogResult::default())));
}

#[test]
fn only_the_clusters_own_agent_writes_its_catalog() {
    let mut world = World::of(&["east", "west"]);
    let east = world.state.cluster_named(&name("east")).unwrap().clone();
    let current = east.session.as_ref().unwrap();
    let changes = vec![put("shop/cart", http())];
    let action = || Action::Catalog {
        cluster: east.id,
        session: current.id,
        sequence: current.sequence + 1,
        changes: changes.clone(),
    };
    for who in [agent("west"), crate::testing::admin(), None] {
        assert_eq!(code(&world.run(who, action()).reply), RefusalCode::Forbidden);
    }
    let opening =
        Action::OpenSession { cluster: east.id, session: session(99), instance: instance(9), uid: None };
    assert_eq!(code(&world.run(agent("west"), opening).reply), RefusalCode::Forbidden);
    assert!(world.state.shards.is_empty());
    world.remove("east");
    assert_eq!(world.run(agent("east"), action()).reply, Reply::Catalog(Err(CatalogError::NotMember)));
    let opening =
        Action::OpenSession { cluster: east.id, session: session(99), instance: instance(9), uid: None };
    assert_eq!(world.run(agent("east"), opening).reply, Reply::Session(Err(SessionError::NotMember)));
}

#[test]
fn while_one_instance_holds_the_session_another_is_refused_and_both_are_named() {
    let mut world = World::new();
    world.join("east");
    let current = |world: &World| world.state.cluster_named(&name("east")).unwrap().session.clone().unwrap();
    assert_eq!(world.open("east", instance(1)), Ok(()));
    let held = current(&world);
    let opened = held.opened.0;
    // However often it asks, and for however long: the holder stays, and nothing but the note of it changes.
    for turn in 1..=3 {
        world.at = opened + turn * 2 * FENCE_MS;
        let refused = world.open("east", instance(2));
        let since_ms = turn * 2 * FENCE_MS;
        assert_eq!(refused, Err(SessionError::Fenced { by: instance(1), since_ms }));
        let refused = Some((instance(2), Millis(opened + 2 * FENCE_MS)));
        assert_eq!(current(&world), crate::state::Session { refused, ..held.clone() });
    }
    // The holder reopens at once: it is the same process.
    assert_eq!(world.open("east", instance(1)), Ok(()));
    assert_eq!(current(&world).refused.map(|r| r.0), Some(instance(2)));
}

#[test]
fn the_next_instance_takes_over_once_the_stream_ended_or_the_lease_lapsed() {
    let ends: [fn(&mut World); 2] = [World::close, |world| world.lapse("east")];
    for end in ends {
        let mut world = World::new();
        world.join("east");
        assert_eq!(world.open("east", instance(1)), Ok(()));
        assert!(matches!(world.open("east", instance(2)), Err(SessionError::Fenced { .. })));
        end(&mut world);
        assert_eq!(world.open("east", instance(2)), Ok(()), "without a pause: it was never fenced");
        let taken = world.state.cluster_named(&name("east")).unwrap().session.clone().unwrap();
        assert_eq!(
            (taken.instance, taken.fenced, taken.closed),
            (instance(2), Some((instance(1), taken.opened)), false)
        );
        assert_eq!(taken.refused, None);
        assert!(matches!(world.open("east", instance(1)), Err(SessionError::Fenced { .. })));
    }
}

#[test]
fn a_fenced_instance_stays_out_for_one_ttl() {
    let mut world = World::new();
    world.join("east");
    assert_eq!(world.open("east", instance(1)), Ok(()));
    world.close();
    assert_eq!(world.open("east", instance(2)), Ok(()));
    let (_, fenced_at) =
        world.state.cluster_named(&name("east")).unwrap().session.as_ref().unwrap().fenced.unwrap();
    world.close();
    world.at = fenced_at.0 + FENCE_MS - 1;
    assert!(matches!(world.open("east", instance(1)), Err(SessionError::Fenced { .. })));
    assert_eq!(world.open("east", instance(1)), Ok(()));
    let now = world.state.meta.now;
    let current = world.state.cluster_named(&name("east")).unwrap().session.clone().unwrap();
    assert_eq!((current.instance, current.fenced), (instance(1), Some((instance(2), now))));
}

#[test]
fn closing_withdraws_nothing_and_only_a_server_closes() {
    let mut world = World::of(&["east", "west"]);
    world.put("east", vec![put("shop/cart", http()), lanes(&[("west", LaneVerdict::Up)])]);
    let east = world.state.cluster_named(&name("east")).unwrap().clone();
    let session = east.session.clone().unwrap();
    let close = |session| Action::Close { cluster: east.id, session };
    assert_eq!(code(&world.run(agent("east"), close(session.id)).reply), RefusalCode::Forbidden);
    let other = world.run(None, close(crate::testing::session(99)));
    assert_eq!(world.state.cluster_named(&name("east")).unwrap(), &east, "another session's end is ignored");
    assert!(other.events.is_empty());
    assert!(world.run(None, close(session.id)).events.is_empty());
    let closed = crate::state::Session { closed: true, ..session };
    let expected = crate::state::Cluster { session: Some(closed), ..(*east).clone() };
    assert_eq!(**world.state.cluster_named(&name("east")).unwrap(), expected);
}

#[test]
fn an_older_catalog_stays_until_the_new_one_is_synced() {
    let mut world = World::of(&["east"]);
    world.put("east", vec![put("shop/cart", http()), put("shop/till", http())]);
    let age = |world: &World| world.state.shard(&key("shop/cart"), world.id("east")).unwrap().observed;
    let first_observed = age(&world);
    world.open("east", instance(1)).unwrap();
    world.put("east", vec![put("shop/cart", http())]);
    assert_eq!(services(&world), ["shop/cart", "shop/till"]);
    let synced =
        |world: &World| world.state.cluster_named(&name("east")).unwrap().session.as_ref().unwrap().synced;
    assert!(!synced(&world));
    world.put("east", vec![CatalogChange::Synced { services: BTreeSet::from([key("shop/cart")]) }]);
    assert!(synced(&world));
    assert_eq!(services(&world), ["shop/cart"]);
    assert_eq!(age(&world), first_observed, "an export keeps its age over a resync");
}

#[test]
fn a_lease_follows_the_current_session_only() {
    let mut world = World::of(&["east"]);
    let cluster = world.id("east");
    let lease = |world: &World| world.state.cluster_named(&name("east")).unwrap().lease;
    let current = world.state.cluster_named(&name("east")).unwrap().session.as_ref().unwrap().id;
    world.run(None, Action::Lapse { cluster, session: session(99) });
    assert!(matches!(lease(&world), Lease::Live { .. }));
    let forged = world.run(agent("east"), Action::Revive { cluster, session: current });
    assert_eq!(code(&forged.reply), RefusalCode::Forbidden);
    world.at = 20_000;
    let lapse = || Action::Lapse { cluster, session: current };
    assert!(!world.run(None, lapse()).events.is_empty());
    assert!(world.run(None, lapse()).events.is_empty(), "it lapses once");
    assert_eq!(lease(&world), Lease::Lapsed { since: Millis(20_000) });
    world.run(None, Action::Revive { cluster, session: session(99) });
    assert!(matches!(lease(&world), Lease::Lapsed { .. }));
    world.at = 30_000;
    world.run(None, Action::Revive { cluster, session: current });
    assert_eq!(lease(&world), Lease::Live { since: Millis(30_000) });
}

#[test]
fn a_new_session_clears_the_lanes_and_revives_the_lease() {
    let mut world = World::of(&["east", "west"]);
    world.put("east", vec![lanes(&[("west", LaneVerdict::Down)])]);
    world.lapse("east");
    world.open("east", instance(1)).unwrap();
    let east = world.state.cluster_named(&name("east")).unwrap();
    assert!(east.lanes.is_empty() && matches!(east.lease, Lease::Live { .. }));
}
