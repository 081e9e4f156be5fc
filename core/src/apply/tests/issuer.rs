//! Joining by tokens of an issuer, and which Kubernetes cluster a member is.

use super::code;
use crate::apply::Fatal;
use crate::command::{
    Action, AddCluster, AdminAction, Command, Joined, OtherCluster, Proof, RefusalCode, Reply, SessionError,
};
use crate::identity::ClusterId;
use crate::name::ClusterUid;
use crate::state::{Admission, Grant, Hash, Issuer, RecordKey, State, TokenScope, UsedToken};
use crate::testing::{World, added, admin, agent, domain, instance, name, scope, session};
use crate::time::Millis;
use std::collections::{BTreeMap, BTreeSet};

const TOKEN: Hash = [20; 32];
const OTHER: Hash = [21; 32];
const LATER: Millis = Millis(77_000);

fn add(world: &mut World, add: AddCluster) -> Reply {
    world.admin(AdminAction::AddCluster(add))
}

fn of(cluster: &str) -> World {
    let mut world = World::new();
    assert_eq!(add(&mut world, added(cluster)), Reply::Done);
    world
}

fn join(world: &mut World, proof: Proof, key: u8) -> Reply {
    world.run(None, Action::JoinByIssuer { proof, key: [key; 32], not_after: LATER }).reply
}

fn enter(world: &mut World, token: Hash, key: u8) -> Reply {
    let proof = world.proof("east", token);
    join(world, proof, key)
}

fn joined(id: u64) -> Reply {
    Reply::Joined(Joined::Cluster { id: ClusterId(id), name: name("east"), trust_domain: domain("east") })
}

fn uid(n: u8) -> ClusterUid {
    ClusterUid::parse(&format!("{n}0000000-0000-4000-8000-000000000000")).unwrap()
}

#[test]
fn an_added_cluster_joins_and_joins_again_as_the_same_member() {
    let mut world = of("east");
    let put = world.index;
    let proof = world.proof("east", TOKEN);
    assert_eq!(join(&mut world, proof.clone(), 1), joined(1));
    let at = world.state.meta.now;
    assert_eq!(enter(&mut world, OTHER, 2), joined(1));
    assert_eq!(world.state.clusters.len(), 1);
    let member = world.state.cluster_named(&name("east")).unwrap();
    assert_eq!((member.certificate.key, member.certificate.not_after), ([2; 32], LATER));
    let used = |key: u8, expires| UsedToken { key: [key; 32], expires };
    let AddCluster { issuer, subject, .. } = added("east");
    let expected = Admission {
        cluster: name("east"),
        trust_domain: domain("east"),
        exports: Grant::exports(),
        imports: Grant::all(),
        issuer,
        subject,
        put,
        used: BTreeMap::from([(TOKEN, used(1, proof.expires)), (OTHER, used(2, proof.expires.plus(1)))]),
        last_joined: Some(at.plus(1)),
    };
    assert_eq!(*world.state.admissions[&name("east")], expected);
    assert_eq!(State::from_records(world.state.records()), Ok(world.state));
}

#[test]
fn a_token_is_used_by_one_key_which_may_retry() {
    let mut world = of("east");
    assert_eq!(enter(&mut world, TOKEN, 1), joined(1));
    assert_eq!(enter(&mut world, TOKEN, 1), joined(1));
    assert_eq!(code(&enter(&mut world, TOKEN, 2)), RefusalCode::Consumed);
    // Also when it is looked at by other keys, and after it has run out.
    assert_eq!(add(&mut world, added("east")), Reply::Done);
    assert_eq!(code(&enter(&mut world, TOKEN, 2)), RefusalCode::Consumed);
    let old = world.proof("east", TOKEN);
    world.at += 200_000;
    assert_eq!(code(&join(&mut world, old, 2)), RefusalCode::Expired);
    assert_eq!(enter(&mut world, OTHER, 2), joined(1));
    let kept: Vec<Hash> = world.state.admissions[&name("east")].used.keys().copied().collect();
    assert_eq!(kept, [OTHER]);
}

#[test]
fn the_tokens_of_one_cluster_are_bounded() {
    let mut world = of("east");
    for n in 0..64 {
        assert_eq!(enter(&mut world, [n; 32], 1), joined(1));
    }
    let before = world.state.admissions.clone();
    assert_eq!(code(&enter(&mut world, [64; 32], 1)), RefusalCode::Invalid);
    assert_eq!(world.state.admissions, before);
}

#[test]
fn who_was_not_added_or_was_removed_or_changed_meanwhile_is_refused() {
    let mut world = World::new();
    assert_eq!(code(&enter(&mut world, TOKEN, 1)), RefusalCode::NotFound);
    assert_eq!(add(&mut world, added("east")), Reply::Done);
    let looked_at = world.proof("east", TOKEN);
    assert_eq!(add(&mut world, added("east")), Reply::Done);
    assert_eq!(code(&join(&mut world, looked_at, 1)), RefusalCode::NotFound);
    assert_eq!(enter(&mut world, TOKEN, 1), joined(1));
    assert_eq!(world.remove("east"), Reply::Done);
    assert!(world.state.admissions.is_empty() && world.state.clusters.is_empty());
    assert_eq!(code(&enter(&mut world, OTHER, 1)), RefusalCode::NotFound);
    // What was only added can be taken back, once.
    assert_eq!(add(&mut world, added("east")), Reply::Done);
    assert_eq!(world.remove("east"), Reply::Done);
    assert_eq!(code(&world.remove("east")), RefusalCode::NotFound);
    // Added again it is another member.
    assert_eq!(add(&mut world, added("east")), Reply::Done);
    assert_eq!(enter(&mut world, OTHER, 1), joined(2));
}

#[test]
fn nobody_but_servers_and_administrators_says_so() {
    let mut world = of("east");
    let proof = world.proof("east", TOKEN);
    let action = Action::JoinByIssuer { proof, key: [1; 32], not_after: LATER };
    for who in [agent("west"), admin()] {
        assert_eq!(code(&world.run(who, action.clone()).reply), RefusalCode::Forbidden);
    }
    let key = world.admin_key();
    let action = Action::Admin { key, action: AdminAction::AddCluster(added("west")) };
    for who in [None, agent("east")] {
        assert_eq!(code(&world.run(who, action.clone()).reply), RefusalCode::Forbidden);
    }
}

#[test]
fn a_cluster_has_one_way_in() {
    let mut world = World::new();
    let early = world.token(scope("east"));
    assert_eq!(add(&mut world, added("east")), Reply::Done);
    let by_token = Action::Join { token: early, key: [1; 32], not_after: LATER };
    assert_eq!(code(&world.run(None, by_token).reply), RefusalCode::Exists);
    let expires = Millis(world.at + 1_000);
    let token = AdminAction::CreateToken { hash: [99; 32], scope: scope("east"), expires };
    assert_eq!(code(&world.admin(token)), RefusalCode::Exists);
}

#[test]
fn a_member_is_added_as_what_it_is() {
    let mut world = World::of(&["east"]);
    let id = world.id("east");
    let stating = |change: fn(&mut AddCluster)| {
        let mut add = added("east");
        change(&mut add);
        add
    };
    let other = stating(|add| add.trust_domain = Some(domain("other")));
    assert_eq!(code(&add(&mut world, other)), RefusalCode::Exists);
    let less = stating(|add| add.exports = Some(Grant { namespaces: vec!["shop".to_owned()] }));
    assert_eq!(code(&add(&mut world, less)), RefusalCode::Exists);
    assert_eq!(add(&mut world, stating(|add| add.trust_domain = None)), Reply::Done);
    assert_eq!(enter(&mut world, TOKEN, 7), joined(id.0));
    assert!(world.state.cluster_named(&name("east")).unwrap().session.is_some());
}

#[test]
fn what_is_added_is_sound_and_nobody_elses() {
    let mut world = World::of(&["west"]);
    let stating = |change: fn(&mut AddCluster)| {
        let mut add = added("east");
        change(&mut add);
        add
    };
    for (bad, expected) in [
        (stating(|a| a.issuer = Issuer::Keys { name: None, keys: Vec::new() }), RefusalCode::Invalid),
        (stating(|a| a.exports = Some(Grant { namespaces: vec!["Shop".to_owned()] })), RefusalCode::Invalid),
        (stating(|a| a.trust_domain = Some(domain("west"))), RefusalCode::Exists),
        (stating(|a| a.trust_domain = Some("fed".parse().unwrap())), RefusalCode::Exists),
    ] {
        assert_eq!(code(&add(&mut world, bad)), expected);
    }
    assert_eq!(add(&mut world, stating(|a| a.trust_domain = None)), Reply::Done);
    assert_eq!(world.state.admissions[&name("east")].trust_domain, domain("east"));
    let thief = AddCluster { name: name("north"), ..stating(|a| a.trust_domain = Some(domain("east"))) };
    assert_eq!(code(&add(&mut world, thief)), RefusalCode::Exists);
    assert!(world.state.clusters.len() == 1 && world.state.admissions.len() == 1);
}

#[test]
fn a_second_cluster_under_the_same_name_is_refused() {
    let mut world = of("east");
    let as_uid = |world: &World, token, n| Proof { uid: Some(uid(n)), ..world.proof("east", token) };
    let first = as_uid(&world, TOKEN, 1);
    assert_eq!(join(&mut world, first, 1), joined(1));
    let before = world.state.clone();
    let second = as_uid(&world, OTHER, 2);
    let applied = world.run(None, Action::JoinByIssuer { proof: second, key: [2; 32], not_after: LATER });
    let said = "cluster east of the federation is the Kubernetes cluster with the kube-system UID \
                10000000-0000-4000-8000-000000000000, and this one has 20000000-0000-4000-8000-000000000000: if that one is \
                gone for good, remove it (`sealane cluster remove east`) and let this one join anew; if it lives, let this \
                one join under another name";
    assert!(
        matches!(&applied.reply, Reply::Refused(refusal) if refusal.message == said),
        "{:?}",
        applied.reply
    );
    assert_eq!(applied.dirty, BTreeSet::from([RecordKey::Meta]));
    assert_eq!((&world.state.clusters, &world.state.admissions), (&before.clusters, &before.admissions));
    // Who does not say is not known to be another.
    assert_eq!(enter(&mut world, OTHER, 3), joined(1));
    assert_eq!(world.state.cluster_named(&name("east")).unwrap().uid, Some(uid(1)));
}

#[test]
fn a_session_records_which_cluster_it_is_and_another_opens_none() {
    let mut world = World::of(&["east"]);
    let id = world.id("east");
    let open = |world: &mut World, n: u8, uid: Option<ClusterUid>| {
        let action = Action::OpenSession { cluster: id, session: session(n), instance: instance(1), uid };
        match world.run(agent("east"), action).reply {
            Reply::Session(result) => result,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(world.state.clusters[&id].uid, None);
    assert_eq!(open(&mut world, 100, Some(uid(1))), Ok(()));
    assert_eq!(world.state.clusters[&id].uid, Some(uid(1)));
    let before = world.state.clusters.clone();
    let other = OtherCluster { name: name("east"), known: uid(1), stated: uid(2) };
    assert_eq!(open(&mut world, 101, Some(uid(2))), Err(SessionError::OtherCluster(other)));
    assert_eq!(world.state.clusters, before);
    assert_eq!(open(&mut world, 102, None), Ok(()));
    assert_eq!(world.state.clusters[&id].uid, Some(uid(1)));
}

#[test]
fn what_is_new_needs_its_version() {
    let key = [1; 16];
    let add = Action::Admin { key, action: AdminAction::AddCluster(added("east")) };
    let removal = Action::Admin { key, action: AdminAction::RemoveCluster { name: name("east") } };
    let open =
        |uid| Action::OpenSession { cluster: ClusterId(1), session: session(1), instance: instance(1), uid };
    let proof = World::new().proof("east", TOKEN);
    let enter = Action::JoinByIssuer { proof, key: [1; 32], not_after: LATER };
    let needs = [&add, &enter, &open(Some(uid(1))), &open(None), &removal].map(Action::version);
    assert_eq!(needs, [2, 2, 2, 1, 1]);
    // A federation of version 1 takes none of it, whoever proposed it.
    let mut world = World::new();
    world.state.meta.cluster_version = 1;
    let index = world.index + 1;
    let command = Command { min_version: 2, at: Millis(1), principal: admin(), action: add };
    assert_eq!(
        world.state.apply(index, &command),
        Err(Fatal::AboveClusterVersion { index, needs: 2, at: 1 })
    );
}

#[test]
fn a_token_scope_names_no_added_cluster_after_its_removal_either() {
    let mut world = of("east");
    assert_eq!(world.remove("east"), Reply::Done);
    let token = world.token(TokenScope::Cluster {
        name: name("east"),
        trust_domain: domain("east"),
        exports: Grant::all(),
        imports: Grant::all(),
    });
    assert_eq!(world.run(None, Action::Join { token, key: [1; 32], not_after: LATER }).reply, joined(1));
}
