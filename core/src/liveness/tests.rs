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

/// Every choice of `n` words, whatever their order: none comes after a lesser one.
fn choices(n: usize) -> Vec<Vec<Word>> {
    let mut all = vec![vec![]];
    for _ in 0..n {
        let longer = all.iter().flat_map(|words: &Vec<Word>| {
            let from = words.last().map_or(0, |last| WORDS.iter().position(|w| w == last).unwrap());
            WORDS[from..].iter().map(|word| [&words[..], &[*word]].concat()).collect::<Vec<_>>()
        });
        all = longer.collect();
    }
    all
}

/// A line for each choice of words: who speaks, what they say, and the verdict on a cluster whose lease lapsed.
fn table() -> String {
    let mut text = String::new();
    for words in (0..=3).flat_map(choices) {
        let found = verdict_of(&scene(&words, true));
        let said = words.iter().map(|word| format!("{word:?}").to_lowercase()).collect::<Vec<_>>().join(" ");
        let line = format!("{said:24} {} up {} down  {:?}", found.up, found.down, found.standing);
        text.push_str(&line);
        text.push('\n');
    }
    text
}

/// The verdict, whole. `silent` has not reported in this session; `lapsed` says down, and its own lease lapsed. A liar is
/// one whose word is alone against two: it neither withdraws nor keeps.
#[test]
fn every_row_of_the_verdict() {
    assert_eq!(table(), include_str!("verdict.txt"));
}

#[test]
fn neither_order_nor_names_matter_and_a_live_lease_decides_alone() {
    for n in 0..=3u32 {
        for scene_number in 0..4usize.pow(n) {
            let words: Vec<Word> = (0..n).map(|i| WORDS[scene_number / 4usize.pow(i) % 4]).collect();
            let found = verdict_of(&scene(&words, true));
            let said = |word| words.iter().filter(|w| **w == word).count();
            assert_eq!(
                (found.up as usize, found.down as usize),
                (said(Word::Up), said(Word::Down)),
                "{words:?}"
            );
            assert_eq!(found.standing == Standing::Withdrawn, said(Word::Down) > said(Word::Up), "{words:?}");
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

/// The last gateway of an importer died: what it said last of a cluster must not keep that cluster for ever.
#[test]
fn evidence_that_is_taken_back_keeps_nothing() {
    let mut world = scene(&[Word::Down, Word::Up], true);
    assert_eq!(verdict_of(&world).standing, Standing::Suspect, "a tie");
    let targets = [name("west"), name("gone")].into();
    world.put("w2", vec![crate::command::CatalogChange::RemoveLanes { targets }]);
    let found = verdict_of(&world);
    assert_eq!((found.standing, found.up, found.down), (Standing::Withdrawn, 0, 1));
    assert_eq!(found.witnesses[1].says, Err(NoWitness::NoReport));
}
