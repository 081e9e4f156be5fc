//! Tokens, joining, renewing, leaving.

use super::code;
use crate::command::{Action, AdminAction, Joined, RefusalCode, Reply};
use crate::identity::{ClusterId, ServerId};
use crate::state::LaneVerdict;
use crate::state::{CertificateRecord, Grant, Hash, TokenScope};
use crate::testing::{World, admin, agent, domain, http, lanes, name, put, scope};
use crate::time::Millis;

fn join(world: &mut World, token: Hash, key: u8) -> Reply {
    world.run(None, Action::Join { token, key: [key; 32], not_after: Millis(77_000) }).reply
}

fn create(world: &mut World, scope: TokenScope, expires: u64) -> Reply {
    let hash = [world.state.tokens.len() as u8 + 100; 32];
    world.admin(AdminAction::CreateToken { hash, scope, expires: Millis(expires) })
}

fn joined(id: u64, cluster: &str) -> Reply {
    Reply::Joined(Joined::Cluster { id: ClusterId(id), name: name(cluster), trust_domain: domain(cluster) })
}

#[test]
fn a_token_is_consumed_by_one_key_which_may_retry() {
    let mut world = World::new();
    let token = world.token(scope("east"));
    assert_eq!(join(&mut world, token, 1), joined(1, "east"));
    assert_eq!(code(&join(&mut world, token, 2)), RefusalCode::Consumed);
    let retried = Action::Join { token, key: [1; 32], not_after: Millis(88_000) };
    assert_eq!(world.run(None, retried).reply, joined(1, "east"));
    assert_eq!(world.state.clusters.len(), 1);
    let record = CertificateRecord { key: [1; 32], not_after: Millis(88_000) };
    assert_eq!(world.state.cluster_named(&name("east")).unwrap().certificate, record);
    assert_eq!(code(&join(&mut world, [9; 32], 1)), RefusalCode::NotFound);
}

#[test]
fn a_token_runs_out_by_the_logs_time() {
    let mut world = World::new();
    let token = world.token(scope("east"));
    world.at += 60_000;
    assert_eq!(code(&join(&mut world, token, 1)), RefusalCode::Expired);
    assert!(world.state.clusters.is_empty());
    // A proposer whose clock is behind can not bring it back.
    world.at = 1;
    assert_eq!(code(&join(&mut world, token, 1)), RefusalCode::Expired);
}

#[test]
fn nobody_with_a_certificate_joins_by_a_token() {
    let mut world = World::of(&["west"]);
    let token = world.token(scope("east"));
    let action = Action::Join { token, key: [1; 32], not_after: Millis(1) };
    assert_eq!(code(&world.run(agent("west"), action).reply), RefusalCode::Forbidden);
}

#[test]
fn a_name_and_a_trust_domain_belong_to_one_member() {
    let mut world = World::new();
    let (early, twin) = (world.token(scope("east")), world.token(scope("east")));
    let alias = |name_: &str, domain_: &str| TokenScope::Cluster {
        name: name(name_),
        trust_domain: domain_.parse().unwrap(),
        exports: Grant::all(),
        imports: Grant::all(),
    };
    let thief = world.token(alias("other", "east.fed"));
    assert_eq!(join(&mut world, early, 1), joined(1, "east"));
    assert_eq!(code(&join(&mut world, twin, 1)), RefusalCode::Exists);
    assert_eq!(code(&join(&mut world, thief, 1)), RefusalCode::Exists);
    let later = world.at + 1_000;
    for (scope, expected) in [
        (alias("east", "new.fed"), RefusalCode::Exists),
        (alias("new", "east.fed"), RefusalCode::Exists),
        (alias("new", "fed"), RefusalCode::Exists),
    ] {
        assert_eq!(code(&create(&mut world, scope, later)), expected);
    }
    let past = world.at - 1;
    assert_eq!(code(&create(&mut world, alias("new", "new.fed"), past)), RefusalCode::Invalid);
    let odd = TokenScope::Cluster {
        name: name("new"),
        trust_domain: domain("new"),
        exports: Grant { namespaces: vec!["Shop?".to_owned()] },
        imports: Grant::all(),
    };
    assert_eq!(code(&create(&mut world, odd, later)), RefusalCode::Invalid);
}

#[test]
fn a_name_that_comes_back_has_another_id_and_the_old_certificate_says_nothing() {
    let mut world = World::of(&["east"]);
    let old = world.id("east");
    assert_eq!(world.remove("east"), Reply::Done);
    world.member("east");
    assert_eq!((old, world.id("east")), (ClusterId(1), ClusterId(2)));
    let renew = Action::Renew { cluster: old, key: [5; 32], not_after: Millis(9) };
    assert_eq!(code(&world.run(agent("east"), renew).reply), RefusalCode::NotFound);
}

#[test]
fn a_removed_cluster_leaves_nothing_behind() {
    let mut world = World::of(&["east", "west"]);
    world.put("west", vec![put("shop/cart", http())]);
    world.put("east", vec![lanes(&[("west", LaneVerdict::Up)])]);
    let west = world.id("west");
    world.remove("west");
    let state = &world.state;
    assert!(state.clusters.get(&west).is_none() && state.shards.is_empty() && state.exported.is_empty());
    assert!(
        state.by_name.get(&name("west")).is_none() && state.by_trust_domain.get(&domain("west")).is_none()
    );
    assert!(state.tokens.values().all(|token| token.consumed.as_ref().unwrap().cluster != Some(west)));
    assert!(state.cluster_named(&name("east")).unwrap().lanes.is_empty());
    assert_eq!(crate::check::check(state), []);
}

#[test]
fn a_certificate_is_renewed_by_its_own_cluster() {
    let mut world = World::of(&["east", "west"]);
    let renew = |cluster| Action::Renew { cluster, key: [5; 32], not_after: Millis(99_000) };
    let east = world.id("east");
    assert_eq!(code(&world.run(agent("west"), renew(east)).reply), RefusalCode::Forbidden);
    assert_eq!(world.run(agent("east"), renew(east)).reply, Reply::Done);
    let record = CertificateRecord { key: [5; 32], not_after: Millis(99_000) };
    assert_eq!(world.state.cluster_named(&name("east")).unwrap().certificate, record);
}

#[test]
fn a_servers_id_is_given_once() {
    let mut world = World::new();
    let later = world.at + 10_000;
    let server = |id| TokenScope::Server { id: ServerId(id) };
    let created = |id| Reply::TokenCreated { server: Some(ServerId(id)) };
    assert_eq!(create(&mut world, server(0), later), created(1));
    assert_eq!(create(&mut world, server(0), later), created(2));
    assert_eq!(create(&mut world, server(7), later), created(7));
    assert_eq!(code(&create(&mut world, server(3), later)), RefusalCode::Exists);
    assert_eq!(create(&mut world, server(0), later), created(8));
    let token = world.state.tokens.values().next().unwrap().hash;
    assert_eq!(join(&mut world, token, 1), Reply::Joined(Joined::Server { id: ServerId(1) }));
    assert_eq!(join(&mut world, token, 1), Reply::Joined(Joined::Server { id: ServerId(1) }));
    assert_eq!(code(&join(&mut world, token, 2)), RefusalCode::Consumed);
}

#[test]
fn a_server_that_was_admitted_and_never_ran_is_removed_by_its_token() {
    for joins in [true, false] {
        let mut world = World::new();
        let token = world.token(TokenScope::Server { id: ServerId(0) });
        let admitted = Reply::Joined(Joined::Server { id: ServerId(1) });
        assert!(!joins || join(&mut world, token, 1) == admitted);
        let remove = || Action::RemoveServer { id: ServerId(1) };
        assert_eq!(world.run(admin(), remove()).reply, Reply::Done);
        assert!(
            world.state.tokens.is_empty(),
            "its certificate counts no more, and the token makes no other"
        );
        assert_eq!(code(&join(&mut world, token, 1)), RefusalCode::NotFound);
        assert_eq!(code(&world.run(admin(), remove()).reply), RefusalCode::NotFound);
    }
}

#[test]
fn expired_tokens_are_forgotten_in_the_end() {
    let mut world = World::new();
    let old = world.token(scope("east"));
    world.at += 60_000 + 24 * 3_600_000 + 1;
    world.token(scope("west"));
    assert!(!world.state.tokens.contains_key(&old));
    assert_eq!(world.state.tokens.len(), 1);
}
