use super::*;
use proptest::prelude::*;
use std::fs;
use std::os::unix::fs::FileExt;

const SMALL: WalConfig = WalConfig { segment_bytes: 4096, cache_bytes: 512 };

fn entry(index: u64, term: u64, data: &[u8]) -> Entry {
    let mut e = Entry::default();
    (e.index, e.term) = (index, term);
    e.data = data.to_vec().into();
    e
}

fn hard_state(term: u64, vote: u64, commit: u64) -> HardState {
    let mut h = HardState::default();
    (h.term, h.vote, h.commit) = (term, vote, commit);
    h
}

fn base() -> Position {
    Position { index: 1, term: 1 }
}

fn create(dir: &Path) -> Wal {
    Wal::create(dir, SMALL, base(), &hard_state(1, 0, 1), 7).unwrap()
}

fn open(dir: &Path) -> Result<Wal, LogError> {
    Wal::open(dir, SMALL, Vec::new)
}

fn append(wal: &mut Wal, range: std::ops::Range<u64>, term: u64, len: usize) {
    for index in range {
        let entries = vec![entry(index, term, &vec![index as u8; len])];
        wal.write(&Batch { entries, ..Batch::default() }).unwrap();
    }
}

/// What a log must look like, by the simplest means.
#[derive(Debug, Clone, PartialEq)]
struct Model {
    hard_state: HardState,
    truncated: Position,
    entries: Vec<Entry>,
}

impl Model {
    fn new() -> Self {
        Model { hard_state: hard_state(1, 0, 1), truncated: base(), entries: Vec::new() }
    }

    fn of(wal: &Wal) -> Self {
        let (first, last) = (wal.truncated().index + 1, wal.last().index);
        let entries = if first > last { Vec::new() } else { wal.entries(first, last + 1, u64::MAX).unwrap() };
        Model { hard_state: wal.hard_state(), truncated: wal.truncated(), entries }
    }

    fn last(&self) -> u64 {
        self.entries.last().map_or(self.truncated.index, |e| e.index)
    }

    fn term(&self, index: u64) -> u64 {
        self.entries.iter().find(|e| e.index == index).map_or(self.truncated.term, |e| e.term)
    }

    fn write(&mut self, batch: &Batch) {
        if let Some(position) = batch.reset {
            (self.truncated, self.entries) = (position, Vec::new());
        }
        if let Some(first) = batch.entries.first() {
            self.entries.retain(|e| e.index < first.index);
            self.entries.extend(batch.entries.iter().cloned());
        }
        if let Some(hard_state) = &batch.hard_state {
            self.hard_state = hard_state.clone();
        }
    }

    fn compact(&mut self, index: u64) {
        self.truncated = Position { index, term: self.term(index) };
        self.entries.retain(|e| e.index > index);
    }
}

#[derive(Debug, Clone)]
enum Op {
    /// Overwrite so many of the last entries, append so many of such a size.
    Append {
        over: u64,
        count: u64,
        size: usize,
    },
    HardState,
    Compact {
        back: u64,
    },
    Reset {
        ahead: u64,
    },
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..4u64, 1..12u64, 0..700usize).prop_map(|(over, count, size)| Op::Append { over, count, size }),
        2 => Just(Op::HardState),
        2 => (0..20u64).prop_map(|back| Op::Compact { back }),
        1 => (0..50u64).prop_map(|ahead| Op::Reset { ahead }),
        2 => Just(Op::Reopen),
    ]
}

/// The batch that an operation means for a log in this state, in this term.
fn batch_of(op: &Op, model: &Model, term: u64) -> Option<Batch> {
    match op {
        Op::Append { over, count, size } => {
            let first = (model.last() + 1).saturating_sub(*over).max(model.truncated.index + 1);
            let entries = (first..first + count).map(|i| entry(i, term, &vec![i as u8; *size])).collect();
            Some(Batch { entries, hard_state: Some(hard_state(term, 1, 1)), ..Batch::default() })
        }
        Op::HardState => Some(Batch { hard_state: Some(hard_state(term, 2, 1)), ..Batch::default() }),
        Op::Reset { ahead } => {
            let index = model.last() + ahead;
            let (reset, hard_state) = (Some(Position { index, term }), Some(hard_state(term, 0, index)));
            Some(Batch { reset, hard_state, ..Batch::default() })
        }
        Op::Compact { .. } | Op::Reopen => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn behaves_as_the_model_through_restarts(ops in prop::collection::vec(op(), 1..40)) {
        let dir = tempfile::tempdir().unwrap();
        let mut wal = create(dir.path());
        let mut model = Model::new();
        for (n, op) in ops.iter().enumerate() {
            if let Some(batch) = batch_of(op, &model, n as u64 + 2) {
                wal.write(&batch).unwrap();
                model.write(&batch);
            } else if let Op::Compact { back } = op {
                let to = model.last().saturating_sub(*back);
                wal.compact(to).unwrap();
                if to > model.truncated.index {
                    model.compact(to);
                }
            } else {
                drop(wal);
                wal = open(dir.path()).unwrap();
            }
            prop_assert_eq!(&Model::of(&wal), &model);
            prop_assert!(wal.index.cached_bytes <= SMALL.cache_bytes.max(800), "{}", wal.index.cached_bytes);
        }
    }

    /// Whatever a crash leaves of the last frame, everything before it is there and the log goes on.
    #[test]
    fn a_torn_tail_is_cut(writes in 1..20u64, size in 1..900usize, kept in 0.0..1.0f64, junk in any::<u8>()) {
        let dir = tempfile::tempdir().unwrap();
        let mut wal = create(dir.path());
        append(&mut wal, 2..2 + writes, 2, size);
        let before = Model::of(&wal);
        let (path, from) = (wal.current().unwrap().path().to_owned(), wal.end);
        append(&mut wal, 2 + writes..3 + writes, 2, size);
        let rotated = wal.current().unwrap().path() != path;
        let (path, from) = if rotated {
            (wal.current().unwrap().path().to_owned(), segment::HEAD as u64)
        } else {
            (path, from)
        };
        let to = wal.end;
        drop(wal);
        let file = fs::File::options().write(true).open(&path).unwrap();
        let torn = from + ((to - from) as f64 * kept) as u64;
        // The frame's last bytes may be padding, which nobody misses.
        let torn = torn.min(to - frame::ALIGN as u64 - 1);
        file.write_all_at(&vec![junk; (to - torn) as usize], torn).unwrap();
        let bytes = fs::read(&path).unwrap();
        let whole = bytes.get(from as usize..).and_then(|_| frame::parse(&bytes, from as usize, Segment::open(&path).unwrap().0.salt));
        prop_assume!(whole.is_none());
        let mut wal = open(dir.path()).unwrap();
        prop_assert_eq!(&Model::of(&wal), &before);
        append(&mut wal, 2 + writes..9 + writes, 3, size);
        let after = Model::of(&wal);
        drop(wal);
        prop_assert_eq!(Model::of(&open(dir.path()).unwrap()), after);
    }

    /// A flipped bit anywhere that was acknowledged and followed is refused.
    #[test]
    fn a_flipped_bit_before_the_last_frame_is_refused(at in 0.0..1.0f64, bit in 0..8u8, size in 1..600usize) {
        let dir = tempfile::tempdir().unwrap();
        let mut wal = create(dir.path());
        append(&mut wal, 2..30, 2, size);
        let whole = Model::of(&wal);
        let last = wal.current;
        drop(wal);
        let paths = segment::list(dir.path()).unwrap();
        let path = &paths[((paths.len() as f64) * at) as usize];
        let mut bytes = fs::read(path).unwrap();
        let offset = (bytes.len() as f64 * (at * 7.0).fract()) as usize;
        bytes[offset] ^= 1 << bit;
        fs::write(path, &bytes).unwrap();
        match open(dir.path()) {
            Err(LogError::Damaged { .. } | LogError::Format { .. }) => {}
            Err(other) => prop_assert!(false, "{other}"),
            // Padding and zeros after the last frame say nothing, and a last frame may count as torn.
            Ok(wal) => {
                let found = Model::of(&wal);
                let same = found == whole;
                let cut = path == &Segment::path_of(dir.path(), last)
                    && found.entries.len() + 1 == whole.entries.len();
                prop_assert!(same || cut);
            }
        }
    }
}

#[test]
fn a_broken_frame_before_a_whole_one_names_the_place_and_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let mut wal = create(dir.path());
    append(&mut wal, 2..3, 2, 100);
    let at = wal.end;
    append(&mut wal, 3..6, 2, 100);
    let path = wal.current().unwrap().path().to_owned();
    drop(wal);
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.write_all_at(&[0xff; 4], at + 30).unwrap();
    let error = open(dir.path()).unwrap_err();
    let LogError::Damaged { offset, .. } = &error else { panic!("{error}") };
    assert_eq!(*offset, at);
    assert!(error.to_string().contains("sealane-federation recover --force-new-cluster"), "{error}");
    let salvage = Wal::salvage(dir.path()).unwrap();
    assert_eq!(salvage.entries, vec![entry(2, 2, &[2; 100])]);
    assert!(salvage.damage.is_some());
}

#[test]
fn a_missing_segment_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut wal = create(dir.path());
    append(&mut wal, 2..40, 2, 500);
    assert!(wal.segments.len() > 3);
    drop(wal);
    let paths = segment::list(dir.path()).unwrap();
    fs::remove_file(&paths[1]).unwrap();
    let error = open(dir.path()).unwrap_err();
    assert!(matches!(error, LogError::Damaged { .. }), "{error}");
}

/// A log of entries 2 to 39 whose oldest two segments are gone; which entry comes first now.
fn beheaded(dir: &Path) -> u64 {
    let mut wal = create(dir);
    append(&mut wal, 2..40, 2, 500);
    let third = *wal.segments.keys().nth(2).unwrap();
    let first = (2..40).find(|i| wal.index.slot(*i).unwrap().segment == third).unwrap();
    drop(wal);
    for path in &segment::list(dir).unwrap()[..2] {
        fs::remove_file(path).unwrap();
    }
    first
}

#[test]
fn without_its_oldest_segments_a_log_goes_on_from_a_snapshot_that_covers_them() {
    for beyond in [0, 1, 5] {
        let dir = tempfile::tempdir().unwrap();
        let first = beheaded(dir.path());
        let at = |index, term| Position { index, term };
        let place = at(first - 1 + beyond, 2);
        // Too old, of another history, beyond the end: none of these covers what is missing.
        for useless in [at(first - 2, 2), at(first + 1, 1), at(40, 2)] {
            let error = Wal::open(dir.path(), SMALL, || vec![useless]).unwrap_err();
            assert!(matches!(error, LogError::Damaged { .. }), "{useless:?}: {error}");
        }
        let mut wal = Wal::open(dir.path(), SMALL, || vec![at(first - 2, 2), place, at(39, 2)]).unwrap();
        assert_eq!((wal.truncated(), wal.last()), (place, at(39, 2)));
        let kept: Vec<Entry> = (place.index + 1..40).map(|i| entry(i, 2, &[i as u8; 500])).collect();
        assert_eq!(Model::of(&wal).entries, kept);
        append(&mut wal, 40..45, 3, 500);
        let whole = Model::of(&wal);
        drop(wal);
        assert_eq!(Model::of(&open(dir.path()).unwrap()), whole, "and once for all");
    }
}

#[test]
fn a_log_that_ends_before_what_was_committed_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut wal = create(dir.path());
    append(&mut wal, 2..20, 2, 500);
    // Votes, until a segment begins with one and holds no entry.
    let before = wal.current;
    while wal.current == before {
        wal.write(&Batch { hard_state: Some(hard_state(3, 1, 19)), ..Batch::default() }).unwrap();
    }
    drop(wal);
    let paths = segment::list(dir.path()).unwrap();
    for path in &paths[..paths.len() - 1] {
        fs::remove_file(path).unwrap();
    }
    let covered = || vec![Position { index: 19, term: 2 }];
    let error = Wal::open(dir.path(), SMALL, covered).unwrap_err();
    assert!(error.to_string().contains("entry 19 was committed, and it ends at 1"), "{error}");
}

#[test]
fn segments_of_an_earlier_size_are_used_up_to_the_size_of_now() {
    let dir = tempfile::tempdir().unwrap();
    let large = WalConfig { segment_bytes: 1 << 20, ..SMALL };
    drop(Wal::create(dir.path(), large, base(), &hard_state(1, 0, 1), 7).unwrap());
    let mut wal = open(dir.path()).unwrap();
    append(&mut wal, 2..40, 2, 500);
    assert!(wal.segments.len() > 3, "{}", wal.segments.len());
    let whole = Model::of(&wal);
    drop(wal);
    assert_eq!(Model::of(&open(dir.path()).unwrap()), whole);
}

#[test]
fn an_emptied_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(create(dir.path()));
    for path in segment::list(dir.path()).unwrap() {
        fs::remove_file(path).unwrap();
    }
    assert!(matches!(open(dir.path()), Err(LogError::Damaged { .. })));
}

#[test]
fn a_command_that_holds_a_frame_does_not_pass_for_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut wal = create(dir.path());
    append(&mut wal, 2..3, 2, 100);
    // As an attacker would, who knows the format and the sequence but not the salt.
    let forged =
        Builder::new(&Batch { entries: vec![entry(3, 2, b"x")], ..Batch::default() }, None).finish(4, 0);
    let at = wal.end;
    let mut data = vec![0; 8];
    data.extend(&forged);
    for shift in 0..8 {
        let entries = vec![entry(3, 2, &data[shift..])];
        wal.write(&Batch { entries, ..Batch::default() }).unwrap();
    }
    drop(wal);
    let (segment, bytes) = Segment::open(&segment::list(dir.path()).unwrap()[0]).unwrap();
    let mut here = at as usize;
    while let Some(found) = frame::parse(&bytes, here, segment.salt) {
        assert_eq!(frame::find_after(&bytes[..found.end], here, segment.salt), None);
        here = found.end;
    }
}

#[test]
fn a_batch_larger_than_a_segment_has_one_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let mut wal = create(dir.path());
    let batch = Batch { entries: vec![entry(2, 2, &[5; 20_000])], ..Batch::default() };
    wal.write(&batch).unwrap();
    append(&mut wal, 3..9, 2, 100);
    let whole = Model::of(&wal);
    drop(wal);
    assert_eq!(Model::of(&open(dir.path()).unwrap()), whole);
}

#[test]
fn compaction_gives_the_disk_back_and_keeps_the_hard_state() {
    let dir = tempfile::tempdir().unwrap();
    let mut wal = create(dir.path());
    wal.write(&Batch { hard_state: Some(hard_state(5, 3, 1)), ..Batch::default() }).unwrap();
    append(&mut wal, 2..200, 5, 400);
    let before = segment::list(dir.path()).unwrap().len();
    wal.compact(190).unwrap();
    let after = segment::list(dir.path()).unwrap().len();
    assert!(before > 15 && after < 4, "{before} {after}");
    drop(wal);
    let wal = open(dir.path()).unwrap();
    assert_eq!((wal.hard_state(), wal.truncated()), (hard_state(5, 3, 1), Position { index: 190, term: 5 }));
    assert_eq!((wal.term(190), wal.term(189), wal.last().index), (Some(5), None, 199));
}

#[test]
fn after_an_error_nothing_is_written_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let mut wal = create(dir.path());
    let gap = Batch { entries: vec![entry(9, 2, b"x"), entry(11, 2, b"x")], ..Batch::default() };
    assert!(matches!(wal.write(&gap), Err(LogError::Misuse(_))));
    let fine = Batch { hard_state: Some(hard_state(9, 9, 9)), ..Batch::default() };
    assert!(matches!(wal.write(&fine), Err(LogError::Stopped)));
}
