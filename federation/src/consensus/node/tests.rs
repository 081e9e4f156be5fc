//! The step machine alone, message by message: no disk, no clock, no threads.

mod net;

use super::*;
use net::Net;

#[test]
fn an_election_and_a_write_message_by_message() {
    let mut net = Net::new(1);
    net.until_leader();
    net.settle();
    net.propose(net.leader(), "a");
    net.settle();
    insta(net.transcript(), include_str!("tests/election_and_write.txt"));
}

#[test]
fn a_follower_refuses_a_proposal_and_names_the_leader() {
    let mut net = Net::new(2);
    net.until_leader();
    net.settle();
    let leader = net.leader();
    let follower = if leader == 1 { 2 } else { 1 };
    let token = net.propose(follower, "a");
    net.settle();
    assert_eq!(net.answer(token), Some(&Outcome::NotLeader(Some(leader))));
}

#[test]
fn a_leader_cut_off_steps_down_and_its_proposal_is_answered_unknown() {
    let mut net = Net::new(3);
    net.until_leader();
    net.settle();
    let old = net.leader();
    net.cut(old);
    let lost = net.propose(old, "lost");
    net.settle();
    assert_eq!(net.answer(lost), None);
    net.ticks(60);
    assert_eq!(net.answer(lost), Some(&Outcome::Unknown));
    let new = net.leader();
    assert_ne!(new, old);
    let kept = net.propose(new, "kept");
    net.settle();
    assert!(net.acknowledged(kept));
    net.heal(old);
    net.ticks(40);
    assert_eq!(net.agreed(), [b"kept-2"]);
    assert!(!net.acknowledged(lost));
}

#[test]
fn a_server_that_was_away_does_not_disturb_the_term() {
    let mut net = Net::new(4);
    net.until_leader();
    net.settle();
    let leader = net.leader();
    let away = if leader == 3 { 2 } else { 3 };
    let term = net.term(leader);
    net.cut(away);
    net.ticks(200);
    net.heal(away);
    net.ticks(50);
    assert_eq!((net.leader(), net.term(leader), net.term(away)), (leader, term, term));
}

#[test]
fn a_read_without_a_leader_expires_and_one_after_it_is_retried() {
    let mut net = Net::new(5);
    let early = net.read(1);
    net.ticks(1);
    assert_eq!(net.answer(early), None);
    net.until_leader();
    net.ticks(10);
    // Dropped by raft when it came, answered because it was asked again.
    assert!(matches!(net.answer(early), Some(Outcome::Read(_))), "{:?}", net.answer(early));
    let leader = net.leader();
    net.cut(leader);
    let late = net.read(leader);
    net.ticks(250);
    assert_eq!(net.answer(late), Some(&Outcome::ReadExpired));
}

#[test]
fn one_change_of_membership_at_a_time() {
    let mut net = Net::new(6);
    net.until_leader();
    net.settle();
    let leader = net.leader();
    let first = net.change(leader, ConfChangeType::AddLearnerNode, 4);
    let second = net.change(leader, ConfChangeType::AddLearnerNode, 5);
    let itself = net.change(leader, ConfChangeType::RemoveNode, leader);
    assert_eq!(net.answer(second), Some(&Outcome::Busy));
    net.settle();
    assert!(matches!(net.answer(first), Some(Outcome::Changed(_))));
    assert_eq!(net.answer(itself), Some(&Outcome::Busy));
    let itself = net.change(leader, ConfChangeType::RemoveNode, leader);
    assert!(matches!(net.answer(itself), Some(Outcome::Refused(_))));
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

#[test]
fn no_two_voters_stand_at_the_same_moment() {
    let timeouts = |ticks, place| -> BTreeSet<usize> {
        (0..50).map(|drawn| election_timeout(ticks, place, drawn)).collect()
    };
    for voters in [1, 3, 5, 7] {
        let all: Vec<BTreeSet<usize>> = (0..voters).map(|at| timeouts(20, Some((at, voters)))).collect();
        let mut seen: Vec<usize> = all.iter().flatten().copied().collect();
        seen.sort_unstable();
        assert!(seen.windows(2).all(|two| two[1] - two[0] >= 2), "{voters} voters: {seen:?}");
        assert!(seen.iter().all(|t| (20..40).contains(t)), "{voters} voters: {seen:?}");
    }
    assert_eq!(timeouts(20, Some((0, 3))), BTreeSet::from([20, 26, 32]));
    assert_eq!(timeouts(20, None).len(), 20, "a learner does not stand, whatever it draws");
}
