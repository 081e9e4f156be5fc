use super::*;
use crate::testing::{World, http, interest, lanes, name, put};

/// What a witness does.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Word {
    Up,
    Down,
    Silent,
    /// Says down, but its own lease lapsed.
    Lapsed,
}

const WORDS: [Word; 4] = [Word::Up, Word::Down, Word::Silent, Word::Lapsed];
const WITNESSES: [&str; 3] = ["w1", "w2", "w3"];

/// West exports, its lease lapsed (or not), and the witnesses speak.
fn scene(words: &[Word], lapsed: bool) -> World {
    let mut world = World::of(&["west"]);
    world.put("west", vec![put("shop/cart", http())]);
    for (witness, word) in WITNESSES.iter().zip(words) {
        world.member(witness);
        match word {
            Word::Up => world.put(witness, vec![lanes(&[("west", LaneVerdict::Up)])]),
            Word::Down | Word::Lapsed => world.put(witness, vec![lanes(&[("west", LaneVerdict::Down)])]),
            Word::Silent => {}
        }
        if *word == Word::Lapsed {
            world.lapse(witness);
        }
    }
    if lapsed {
        world.lapse("west");
    }
    world
}

fn verdict_of(world: &World) -> Liveness {
    verdict(&world.state, world.id("west"))
}

#[test]
fn every_scene_of_up_to_three_witnesses() {
    use Standing::{Suspect, Withdrawn};
    use Word::{Down, Lapsed, Silent, Up};
    let named: [(&[Word], Standing); 12] = [
        (&[], Suspect),
        (&[Up], Suspect),
        (&[Down], Withdrawn),
        (&[Silent], Suspect),
        (&[Lapsed], Suspect),
        (&[Up, Down], Suspect),
        (&[Down, Down], Withdrawn),
        (&[Down, Silent], Withdrawn),
        (&[Up, Up, Down], Suspect),     // a liar does not withdraw it
        (&[Down, Down, Up], Withdrawn), // nor does one keep it
        (&[Down, Up, Lapsed], Suspect), // a lapsed witness does not break the tie
        (&[Lapsed, Lapsed, Lapsed], Suspect),
    ];
    for (words, expected) in named {
        assert_eq!(verdict_of(&scene(words, true)).standing, expected, "{words:?}");
    }
    for n in 0..=3u32 {
        for scene_number in 0..4usize.pow(n) {
            let words: Vec<Word> = (0..n).map(|i| WORDS[scene_number / 4usize.pow(i) % 4]).collect();
            let found = verdict_of(&scene(&words, true));
            let said = |word| words.iter().filter(|w| **w == word).count();
            assert_eq!((found.up as usize, found.down as usize), (said(Up), said(Down)), "{words:?}");
            assert_eq!(found.standing == Withdrawn, said(Down) > said(Up), "{words:?}");
            assert_eq!(verdict_of(&scene(&words, false)).standing, Standing::Live, "{words:?}");
        }
    }
}

#[test]
fn the_evidence_is_shown_whole() {
    let world = scene(&[Word::Up, Word::Silent, Word::Lapsed], true);
    let found = verdict_of(&world);
    let since = world.state.cluster_named(&name("w1")).unwrap().lanes[&world.id("west")].since;
    let lease = world.state.cluster_named(&name("west")).unwrap().lease;
    assert!(matches!(lease, Lease::Lapsed { .. }));
    let witness = |cluster: &str, says| Witness { cluster: name(cluster), says };
    assert_eq!(
        found,
        Liveness {
            standing: Standing::Suspect,
            lease,
            witnesses: vec![
                witness("w1", Ok((LaneVerdict::Up, since))),
                witness("w2", Err(NoWitness::NoReport)),
                witness("w3", Err(NoWitness::NoLease)),
            ],
            up: 1,
            down: 0,
        }
    );
}

#[test]
fn who_does_not_import_from_a_cluster_is_no_witness_of_it() {
    let mut world = scene(&[Word::Down], true);
    assert_eq!(verdict_of(&world).standing, Standing::Withdrawn);
    world.put("w1", vec![interest(&["elsewhere"])]);
    let found = verdict_of(&world);
    assert_eq!((found.standing, found.witnesses), (Standing::Suspect, vec![]));
}

#[test]
fn it_returns_on_a_renewed_lease_or_when_the_word_turns() {
    let mut world = scene(&[Word::Down, Word::Silent], true);
    assert_eq!(verdict_of(&world).standing, Standing::Withdrawn);
    world.put("w2", vec![lanes(&[("west", LaneVerdict::Up)])]);
    assert_eq!(verdict_of(&world).standing, Standing::Suspect);
    world.put("w2", vec![lanes(&[("west", LaneVerdict::Down)])]);
    assert_eq!(verdict_of(&world).standing, Standing::Withdrawn);
    world.revive("west");
    assert_eq!(verdict_of(&world).standing, Standing::Live);
}

#[test]
fn a_new_session_of_a_witness_takes_its_word_back() {
    let mut world = scene(&[Word::Down], true);
    world.open("w1", crate::testing::instance(1)).unwrap();
    assert_eq!(verdict_of(&world).standing, Standing::Suspect);
}

#[test]
fn who_never_opened_a_session_is_not_live_and_not_withdrawn() {
    let mut world = World::new();
    world.join("west");
    assert_eq!(verdict_of(&world).standing, Standing::Suspect);
    assert_eq!(verdict(&world.state, ClusterId(99)).lease, Lease::Never);
}
