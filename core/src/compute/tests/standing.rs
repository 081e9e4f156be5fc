//! Views while clusters lapse, are avoided, are withdrawn, and come back.

use super::cart;
use crate::command::CatalogChange;
use crate::compute::explain;
use crate::endpoint::Locality;
use crate::name::NetworkName;
use crate::reach::out_of_reach;
use crate::report::{Outcome, Rejection};
use crate::state::LaneVerdict::{Down, Up};
use crate::testing::{World, endpoint, http, key, lanes, name, put, put_endpoints};
use crate::view::{Standing, Tier};

/// East, edge and far import from west, all in one network.
fn flat() -> World {
    let mut world = cart(&["east", "west", "edge", "far"]);
    for cluster in ["east", "west", "edge", "far"] {
        let network = NetworkName::parse("flat").unwrap();
        world.put(
            cluster,
            vec![CatalogChange::PutProfile { network, locality: Locality::default(), probes: vec![] }],
        );
    }
    world
}

fn tiers(world: &World, importer: &str) -> Vec<(String, Tier)> {
    let candidates = world.import(importer, "shop/cart").unwrap().candidates;
    candidates.iter().map(|candidate| (candidate.cluster.to_string(), candidate.tier)).collect()
}

fn west(tier: Tier) -> Vec<(String, Tier)> {
    vec![("west".to_owned(), tier)]
}

#[test]
fn a_silent_agent_withdraws_nothing() {
    let mut world = flat();
    world.lapse("west");
    for importer in ["east", "edge", "far"] {
        assert_eq!(tiers(&world, importer), west(Tier::Remote), "{importer}");
        assert_eq!(world.peer(importer, "west").unwrap().standing, Standing::Suspect);
    }
}

#[test]
fn one_importer_that_can_not_reach_a_live_cluster_avoids_it_alone() {
    let mut world = flat();
    world.put("east", vec![lanes(&[("west", Down)])]);
    assert_eq!(tiers(&world, "east"), west(Tier::Avoided));
    assert_eq!(tiers(&world, "edge"), west(Tier::Remote));
    assert_eq!(tiers(&world, "west"), west(Tier::Local));
}

#[test]
fn a_cluster_that_lapsed_and_is_outvoted_is_withdrawn_from_all_but_itself_and_those_who_reach_it() {
    let mut world = flat();
    world.lapse("west");
    world.put("east", vec![lanes(&[("west", Down)])]);
    world.put("edge", vec![lanes(&[("west", Down)])]);
    world.put("far", vec![lanes(&[("west", Up)])]);
    assert_eq!(tiers(&world, "east"), []);
    assert_eq!(tiers(&world, "edge"), []);
    assert_eq!(tiers(&world, "far"), west(Tier::Remote), "its own evidence says up");
    assert_eq!(tiers(&world, "west"), west(Tier::Local), "local endpoints always stay");
    let peer = world.peer("east", "west").unwrap();
    assert_eq!((peer.standing, peer.exports_to_us), (Standing::Withdrawn, true), "it is probed on");
    let import = world.import("east", "shop/cart").unwrap();
    assert!(import.clusters.contains(&name("west")), "and its export still counts");
    let nowhere = out_of_reach(&import).unwrap();
    assert_eq!(nowhere.reason, "ClusterWithdrawn");
    assert!(nowhere.message.contains("west: withdrawn"), "{}", nowhere.message);
    assert_eq!(out_of_reach(&world.import("far", "shop/cart").unwrap()), None);
    let report = explain(&world.state, world.id("east"), &key("shop/cart")).unwrap();
    assert_eq!(report.decisions[0].outcome, Outcome::Rejected(Rejection::ClusterWithdrawn));
    assert_eq!((report.exports[0].liveness.up, report.exports[0].liveness.down), (1, 2));
    world.revive("west");
    assert_eq!(out_of_reach(&world.import("east", "shop/cart").unwrap()), None);
    assert_eq!(tiers(&world, "east"), west(Tier::Avoided));
    assert_eq!(tiers(&world, "edge"), west(Tier::Avoided));
}

/// What east sees of west, by west's lease, by what east itself says, and by what the two others say.
#[test]
fn every_row_of_what_an_importer_sees() {
    let (remote, avoided, gone) = (west(Tier::Remote), west(Tier::Avoided), vec![]);
    let rows = [
        // lease lapsed, east, edge, far: what east sees
        (false, None, [None, None], &remote),
        (false, Some(Up), [Some(Down), Some(Down)], &remote),
        (false, None, [Some(Down), Some(Down)], &remote),
        (false, Some(Down), [Some(Up), Some(Up)], &avoided),
        (false, Some(Down), [Some(Down), Some(Down)], &avoided),
        (true, None, [None, None], &remote),
        (true, Some(Up), [None, None], &remote),
        (true, Some(Down), [None, None], &gone),
        (true, Some(Down), [Some(Up), None], &avoided), // a tie
        (true, Some(Down), [Some(Up), Some(Up)], &avoided), // a liar, or cut off alone
        (true, Some(Down), [Some(Down), Some(Up)], &gone),
        (true, Some(Down), [Some(Down), Some(Down)], &gone),
        (true, Some(Up), [Some(Down), None], &remote), // a tie
        (true, Some(Up), [Some(Down), Some(Down)], &remote), // it reaches west, whatever the others say
        (true, None, [Some(Down), None], &gone),
        (true, None, [Some(Down), Some(Down)], &gone),
        (true, None, [Some(Down), Some(Up)], &remote), // a tie
        (true, None, [Some(Up), Some(Up)], &remote),
    ];
    for (lapsed, own, others, seen) in rows {
        let mut world = flat();
        if lapsed {
            world.lapse("west");
        }
        for (witness, word) in [("east", own), ("edge", others[0]), ("far", others[1])] {
            if let Some(word) = word {
                world.put(witness, vec![lanes(&[("west", word)])]);
            }
        }
        assert_eq!(&tiers(&world, "east"), seen, "{lapsed} {own:?} {others:?}");
        assert_eq!(tiers(&world, "west"), west(Tier::Local), "its own endpoints always stay");
        assert!(world.peer("east", "west").unwrap().exports_to_us, "it stays a probe target");
    }
}

#[test]
fn all_leases_lapsed_at_once_withdraw_nothing() {
    let mut world = flat();
    for witness in ["east", "edge", "far"] {
        world.put(witness, vec![lanes(&[("west", Down)])]);
    }
    for cluster in ["west", "east", "edge", "far"] {
        world.lapse(cluster);
    }
    for importer in ["east", "edge", "far"] {
        assert_eq!(
            tiers(&world, importer),
            west(Tier::Avoided),
            "{importer}: its own word, and nobody's verdict"
        );
        assert_eq!(world.peer(importer, "west").unwrap().standing, Standing::Suspect);
    }
}

#[test]
fn an_importer_without_evidence_of_its_own_follows_the_verdict() {
    let mut world = flat();
    world.lapse("west");
    world.put("east", vec![lanes(&[("west", Down)])]);
    assert_eq!(tiers(&world, "edge"), []);
}

#[test]
fn a_withdrawn_oldest_export_still_rules_the_properties() {
    let mut world = flat();
    let mut younger = http();
    younger.spec.as_mut().unwrap().ports[0].port = 81;
    world.put("edge", vec![put("shop/cart", younger), put_endpoints("shop/cart", vec![endpoint("edge", 1)])]);
    let before = world.import("east", "shop/cart").unwrap();
    world.lapse("west");
    world.put("east", vec![lanes(&[("west", Down)])]);
    let after = world.import("east", "shop/cart").unwrap();
    assert_eq!((after.ports, after.clusters), (before.ports, before.clusters));
}
