//! What commands do and refuse. Each test drives real commands and asserts whole values.

mod catalog;
mod enrolment;
mod issuer;
mod sessions;

use crate::apply::Fatal;
use crate::command::{ADMIN_SKEW_MS, Action, AdminAction, Command, RefusalCode, Reply, VERSION, admin_key};
use crate::events::Events;
use crate::identity::{FederationId, Principal, ServerId};
use crate::name::{ServiceAccount, TrustDomain};
use crate::state::{ADMIN_RESULTS, Limits, RecordKey, Server, State};
use crate::testing::{World, admin, agent, name};
use crate::time::{Millis, Revision};
use std::collections::BTreeSet;

fn code(reply: &Reply) -> RefusalCode {
    match reply {
        Reply::Refused(refusal) => refusal.code,
        other => panic!("not refused: {other:?}"),
    }
}

fn found() -> Action {
    let trust_domain = TrustDomain::parse("fed").unwrap();
    Action::Found { federation: FederationId([7; 16]), trust_domain, limits: Limits::default() }
}

fn plain(min_version: u32, action: Action) -> Command {
    Command { min_version, at: Millis(5), principal: None, action }
}

#[test]
fn a_replica_stops_where_it_would_part_from_its_peers() {
    let remove = || Action::RemoveServer { id: ServerId(1) };
    let mut state = State::empty();
    assert_eq!(state.apply(1, &plain(1, remove())), Err(Fatal::NotFounded { index: 1 }));
    let newer = VERSION + 1;
    assert_eq!(state.apply(1, &plain(newer, found())), Err(Fatal::TooNew { index: 1, needs: newer }));
    assert_eq!(state, State::empty());
    state.apply(1, &plain(1, found())).unwrap();
    let founded = state.clone();
    assert_eq!(state.apply(2, &plain(1, found())), Err(Fatal::FoundedTwice { index: 2 }));
    assert_eq!(state.apply(1, &plain(1, remove())), Err(Fatal::OutOfOrder { index: 1, applied: 1 }));
    assert_eq!(state.apply(2, &plain(9, remove())), Err(Fatal::TooNew { index: 2, needs: 9 }));
    state.meta.cluster_version = 1;
    assert_eq!(state, founded);
}

#[test]
fn the_version_is_raised_to_what_this_build_understands_and_never_lowered() {
    let mut state = State::empty();
    state.apply(1, &plain(1, found())).unwrap();
    let raise = |version| plain(1, Action::RaiseVersion { version });
    let newer = VERSION + 1;
    assert_eq!(state.apply(2, &raise(newer)), Err(Fatal::TooNew { index: 2, needs: newer }));
    state.apply(2, &raise(VERSION)).unwrap();
    assert_eq!(state.meta.cluster_version, VERSION);
    state.apply(3, &raise(1)).unwrap();
    assert_eq!(state.meta.cluster_version, VERSION);
}

#[test]
fn a_refusal_moves_the_revision_and_the_time_and_nothing_else() {
    let mut world = World::of(&["east"]);
    let before = world.state.clone();
    world.at = 50_000;
    let applied = world.run(agent("east"), Action::RemoveServer { id: ServerId(1) });
    assert_eq!(code(&applied.reply), RefusalCode::Forbidden);
    assert_eq!((applied.dirty, applied.events), (BTreeSet::from([RecordKey::Meta]), Events::default()));
    let mut expected = before;
    expected.meta.revision = Revision { generation: 1, index: world.index };
    expected.meta.now = Millis(50_000);
    assert_eq!(world.state, expected);
}

#[test]
fn time_never_goes_back() {
    let mut world = World::new();
    world.at = 9_000;
    world.join("east");
    world.at = 10;
    world.join("west");
    assert!(world.state.meta.now >= Millis(9_000));
    assert!(world.state.cluster_named(&name("west")).unwrap().joined >= Millis(9_000));
}

#[test]
fn a_server_records_its_own_address_and_nobody_elses() {
    let put = |id, address: &str| Action::PutServer {
        id: ServerId(id),
        address: address.to_owned(),
        status_address: "127.0.0.1:2".to_owned(),
    };
    let server = |id| Some(crate::identity::Principal::Server(ServerId(id)));
    let mut world = World::new();
    assert_eq!(world.run(server(1), put(1, "127.0.0.1:1")).reply, Reply::Done);
    assert_eq!(code(&world.run(server(2), put(1, "127.0.0.1:9")).reply), RefusalCode::Forbidden);
    assert_eq!(code(&world.run(agent("east"), put(2, "127.0.0.1:9")).reply), RefusalCode::Forbidden);
    assert_eq!(code(&world.run(None, put(2, "")).reply), RefusalCode::Invalid);
    assert_eq!(code(&world.run(None, put(0, "a:1")).reply), RefusalCode::Invalid);
    let known = world.state.servers.values().map(|server| (**server).clone()).collect::<Vec<_>>();
    let (address, status_address) = ("127.0.0.1:1".to_owned(), "127.0.0.1:2".to_owned());
    assert_eq!(known, [Server { id: ServerId(1), address, status_address }]);
    assert_eq!(world.state.meta.next_server, 2);
    assert_eq!(world.run(admin(), Action::RemoveServer { id: ServerId(1) }).reply, Reply::Done);
    assert_eq!(
        code(&world.run(admin(), Action::RemoveServer { id: ServerId(1) }).reply),
        RefusalCode::NotFound
    );
    assert_eq!(world.state.meta.next_server, 2);
}

#[test]
fn an_administrators_command_runs_once_under_its_key() {
    let mut world = World::of(&["east"]);
    let removal = |key| Action::Admin { key, action: AdminAction::RemoveCluster { name: name("east") } };
    assert_eq!(world.run(admin(), removal([200; 16])).reply, Reply::Done);
    let after = world.state.clusters.clone();
    assert_eq!(world.run(admin(), removal([200; 16])).reply, Reply::Done);
    assert_eq!(code(&world.run(admin(), removal([201; 16])).reply), RefusalCode::NotFound);
    assert_eq!(code(&world.run(admin(), removal([201; 16])).reply), RefusalCode::NotFound);
    assert_eq!(world.state.clusters, after);
    for who in [None, agent("east")] {
        assert_eq!(code(&world.run(who, removal([202; 16])).reply), RefusalCode::Forbidden);
    }
    // A stranger's attempt keeps nothing, so it can not squat a key or push others out.
    assert!(world.state.admin_results.values().all(|result| result.key != [202; 16]));
}

#[test]
fn another_administrators_key_is_another_key() {
    let mut world = World::of(&["east", "west"]);
    let removal =
        |of| Action::Admin { key: [200; 16], action: AdminAction::RemoveCluster { name: name(of) } };
    let other = || Some(Principal::Admin(ServiceAccount::parse("other").unwrap()));
    assert_eq!(world.run(admin(), removal("east")).reply, Reply::Done);
    assert_eq!(code(&world.run(other(), removal("east")).reply), RefusalCode::NotFound);
    assert_eq!(world.run(admin(), removal("east")).reply, Reply::Done);
    assert_eq!(crate::check::check(&world.state), []);
}

#[test]
fn a_retry_that_comes_after_its_answer_was_evicted_is_not_run_again() {
    let mut world = World::of(&["west"]);
    let removal = |ms, n: usize, of| {
        let mut unique = [0; 10];
        unique[..8].copy_from_slice(&(n as u64).to_be_bytes());
        let action = AdminAction::RemoveCluster { name: name(of) };
        Action::Admin { key: admin_key(Millis(ms), unique), action }
    };
    let issued = world.at;
    assert_eq!(world.run(admin(), removal(issued, 0, "west")).reply, Reply::Done);
    world.join("west");
    for n in 1..=ADMIN_RESULTS {
        world.run(admin(), removal(world.at, n, "nobody"));
    }
    let before = world.state.clone();
    assert_eq!(code(&world.run(admin(), removal(issued, 0, "west")).reply), RefusalCode::Forgotten);
    assert_eq!(code(&world.run(admin(), removal(issued, 7_777, "west")).reply), RefusalCode::Forgotten);
    assert_eq!(
        (&world.state.clusters, &world.state.admin_results),
        (&before.clusters, &before.admin_results)
    );
    assert_eq!(world.run(admin(), removal(world.at, 8_888, "west")).reply, Reply::Done);
}

#[test]
fn a_clock_that_is_far_ahead_shuts_nobody_out_for_long() {
    let mut world = World::new();
    let nobody = |key| Action::Admin { key, action: AdminAction::RemoveCluster { name: name("nobody") } };
    for n in 0..=ADMIN_RESULTS {
        let unique = u16::try_from(n).unwrap().to_be_bytes();
        let mut key = [255; 16];
        key[14..].copy_from_slice(&unique);
        world.run(admin(), nobody(key));
    }
    let late = admin_key(Millis(world.at).plus(ADMIN_SKEW_MS + 1), [0; 10]);
    assert_eq!(code(&world.run(admin(), nobody(late)).reply), RefusalCode::NotFound);
}

#[test]
fn the_ring_of_results_drops_the_oldest_first() {
    let mut world = World::new();
    let key = |n: usize| {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&(n as u64).to_be_bytes());
        key
    };
    let removal =
        |n| Action::Admin { key: key(n), action: AdminAction::RemoveCluster { name: name("nobody") } };
    for n in 0..ADMIN_RESULTS {
        world.run(admin(), removal(n));
    }
    let applied = world.run(admin(), removal(ADMIN_RESULTS));
    let kept: Vec<_> = world.state.admin_results.values().map(|result| result.key).collect();
    assert_eq!(kept, (1..=ADMIN_RESULTS).map(key).collect::<Vec<_>>());
    assert_eq!(applied.dirty.len(), 3, "the federation's facts, the new result and the dropped one");
}
