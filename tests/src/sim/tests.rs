//! What the simulation itself must show: one seed is one history, enough happens in them, and every defect is caught.

use super::*;
use std::ops::ControlFlow::{Break, Continue};
use std::thread;

/// Seeds of every run of the tests; more of them are the binary's business.
const SEEDS: u64 = 200;
/// Seeds among these within which every defect is caught.
const CAUGHT_WITHIN: u64 = 200;
const THREADS: usize = 2;

/// For every defect the property that must say so; others may speak as well.
const DEFECTS: [(&str, &str); 7] = [
    ("no-fsync", "acknowledged-never-lost"),
    ("vote-not-persisted", "one-vote-a-term"),
    ("promised-before-persisted", "servers-go-on"),
    ("answered-before-applied", "acknowledged-never-lost"),
    ("light-ready-dropped", "replicas-agree"),
    ("read-unconfirmed", "revisions-never-go-back"),
    ("snapshot-without-confstate", "convergence"),
];

#[test]
fn every_property_holds_of_two_hundred_histories() {
    let mut all = Counts::default();
    let mut seen = 0;
    sweep(0..SEEDS, None, THREADS, |outcome| {
        if let Some(complaint) = outcome.complaint(None) {
            panic!("{complaint}");
        }
        (seen, all) = (seen + 1, all.and(outcome.counts));
        Continue(())
    });
    assert_eq!(seen, SEEDS);
    // Otherwise it proves little.
    let Counts { simulated_ms, acknowledged, retries, reads, crashes, leaders, installs, messages } = all;
    let each = [
        (acknowledged, 50 * SEEDS),
        (retries, 50 * SEEDS),
        (reads, 20 * SEEDS),
        (crashes, 5 * SEEDS),
        (leaders, 2 * SEEDS),
        (installs, SEEDS / 5),
        (messages, 1000 * SEEDS),
        (simulated_ms, 10_000 * SEEDS),
    ];
    assert!(each.iter().all(|(found, least)| found >= least), "{all}");
}

#[test]
fn a_seed_has_one_history() {
    let first = run(7, None);
    let other = run(8, None);
    assert_ne!(first.hash, other.hash);
    // Again after others ran here, and beside others.
    assert_eq!(run(7, None), first);
    let beside = thread::scope(|scope| {
        let threads = [8, 7].map(|seed| scope.spawn(move || run(seed, None)));
        threads.map(|thread| thread.join().unwrap())
    });
    assert_eq!(beside, [other, first]);
}

#[test]
fn every_defect_is_caught_by_its_property_within_seeds_that_hold_without_it() {
    const { assert!(CAUGHT_WITHIN <= SEEDS, "these seeds must be known to hold") };
    assert_eq!(DEFECTS.map(|(name, _)| name), Fault::ALL.map(|(name, ..)| name));
    for (name, property) in DEFECTS {
        let mut said = Vec::new();
        sweep(0..CAUGHT_WITHIN, fault(name), THREADS, |outcome| {
            let found = outcome.violation.map(|violation| violation.property);
            said.extend(found);
            if found == Some(property) { Break(()) } else { Continue(()) }
        });
        assert_eq!(said.last(), Some(&property), "{name}: {said:?}");
    }
}

#[test]
fn a_seed_that_does_not_hold_says_how_to_see_it_again() {
    let broken = fault("answered-before-applied");
    let mut found = None;
    sweep(0..CAUGHT_WITHIN, broken, THREADS, |outcome| match outcome.violation {
        Some(_) => {
            found = Some(outcome);
            Break(())
        }
        None => Continue(()),
    });
    let found = found.unwrap();
    let seed = found.seed;
    let complaint = found.complaint(Some("answered-before-applied")).unwrap();
    let violation = found.violation.as_ref().unwrap();
    let end = format!(
        "\nseed {seed} does not hold {violation}\nagain: cargo run --release -p sealane-tests --bin sim -- --seed \
         {seed} --broken answered-before-applied"
    );
    assert!(complaint.ends_with(&end), "{complaint}");
    assert!(command(seed, None).ends_with(&format!("-- --seed {seed}")));
    assert_eq!(run(seed, broken), found);
}
