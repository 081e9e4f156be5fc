//! The step machine alone: no disk, no clock, no threads; what happens is what the seed says.

mod sim;

use super::*;
use sim::Sim;

#[test]
fn an_election_and_a_write_message_by_message() {
    let mut sim = Sim::new(3, 1);
    sim.record();
    sim.until_leader();
    sim.settle();
    sim.propose(sim.leader(), "a");
    sim.settle();
    insta(&sim.transcript(), include_str!("tests/election_and_write.txt"));
}

#[test]
fn the_same_seed_gives_the_same_history() {
    let history = |seed| {
        let mut sim = Sim::new(3, seed);
        sim.record();
        sim.weather(200, seed);
        sim.transcript()
    };
    assert_eq!(history(5), history(5));
    assert_ne!(history(5), history(6));
}

#[test]
fn a_follower_refuses_a_proposal_and_names_the_leader() {
    let mut sim = Sim::new(3, 2);
    sim.until_leader();
    sim.settle();
    let leader = sim.leader();
    let follower = if leader == 1 { 2 } else { 1 };
    let token = sim.propose(follower, "a");
    sim.settle();
    assert_eq!(sim.answer(token), Some(&Outcome::NotLeader(Some(leader))));
}

#[test]
fn a_leader_cut_off_steps_down_and_its_proposal_is_answered_unknown() {
    let mut sim = Sim::new(3, 3);
    sim.until_leader();
    sim.settle();
    let old = sim.leader();
    sim.cut(old);
    let lost = sim.propose(old, "lost");
    sim.settle();
    assert_eq!(sim.answer(lost), None);
    sim.ticks(60);
    assert_eq!(sim.answer(lost), Some(&Outcome::Unknown));
    let new = sim.leader();
    assert_ne!(new, old);
    let kept = sim.propose(new, "kept");
    sim.settle();
    assert!(sim.acknowledged(kept));
    sim.heal(old);
    sim.ticks(40);
    sim.assert_converged();
    assert!(!sim.acknowledged(lost));
}

#[test]
fn a_server_that_was_away_does_not_disturb_the_term() {
    let mut sim = Sim::new(3, 4);
    sim.until_leader();
    sim.settle();
    let leader = sim.leader();
    let away = if leader == 3 { 2 } else { 3 };
    let term = sim.term(leader);
    sim.cut(away);
    sim.ticks(200);
    sim.heal(away);
    sim.ticks(50);
    assert_eq!((sim.leader(), sim.term(leader), sim.term(away)), (leader, term, term));
}

#[test]
fn a_read_without_a_leader_expires_and_one_after_it_is_retried() {
    let mut sim = Sim::new(3, 5);
    let early = sim.read(1);
    sim.ticks(1);
    assert_eq!(sim.answer(early), None);
    sim.until_leader();
    sim.ticks(10);
    // Dropped by raft when it came, answered because it was asked again.
    assert!(matches!(sim.answer(early), Some(Outcome::Read(_))), "{:?}", sim.answer(early));
    let leader = sim.leader();
    sim.cut(leader);
    let late = sim.read(leader);
    sim.ticks(150);
    assert_eq!(sim.answer(late), Some(&Outcome::ReadExpired));
}

#[test]
fn one_change_of_membership_at_a_time() {
    let mut sim = Sim::new(3, 6);
    sim.until_leader();
    sim.settle();
    let leader = sim.leader();
    let first = sim.change(leader, ConfChangeType::AddLearnerNode, 4);
    let second = sim.change(leader, ConfChangeType::AddLearnerNode, 5);
    let itself = sim.change(leader, ConfChangeType::RemoveNode, leader);
    assert_eq!(sim.answer(second), Some(&Outcome::Busy));
    sim.settle();
    assert!(matches!(sim.answer(first), Some(Outcome::Changed(_))));
    assert_eq!(sim.answer(itself), Some(&Outcome::Busy));
    let itself = sim.change(leader, ConfChangeType::RemoveNode, leader);
    assert!(matches!(sim.answer(itself), Some(Outcome::Refused(_))));
}

#[test]
fn whatever_the_weather_nothing_acknowledged_is_lost_and_all_agree() {
    let seeds = std::env::var("SEALANE_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(40);
    let (mut acknowledged, mut installed, mut unknown) = (0, 0, 0);
    for seed in 0..seeds {
        let mut sim = Sim::new(if seed % 3 == 0 { 5 } else { 3 }, seed);
        sim.weather(2000, seed);
        sim.calm();
        acknowledged += sim.acknowledged_count();
        installed += sim.installed;
        unknown += sim.unknown_count();
    }
    let each = |count: usize, least: usize| assert!(count as u64 >= least as u64 * seeds / 10, "{count}");
    // Otherwise it proves little.
    each(acknowledged, 300);
    each(installed, 1);
    each(unknown, 5);
}

/// Compares with what is kept, and says how to keep the new one.
fn insta(found: &str, kept: &str) {
    if std::env::var_os("SEALANE_REWRITE").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/consensus/node/tests/election_and_write.txt");
        std::fs::write(path, found).unwrap();
        return;
    }
    assert_eq!(found, kept, "explain the difference, then rewrite with SEALANE_REWRITE=1");
}
