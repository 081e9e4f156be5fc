//! The log on a real disk: append-only segments, one frame and one fdatasync per batch.
//!
//! Law: at most the last frame was not synced, because a frame is synced before the next is written. So at open
//! a broken frame with nothing whole after it is the tail that a crash tore, was never acknowledged, and is cut; a
//! broken frame with a whole one after it is damage, and refused. (A last frame that rots after its sync looks like a
//! torn tail. What it held is caught only if the restart image had applied it: see [`super::super::state`].)

use crate::store::durable;
use crate::store::log::frame::{self, Builder, Record};
use crate::store::log::segment::{self, Segment, Spare, io_error};
use crate::store::log::{Batch, LogError, Position, RaftLog};
use raft::eraftpb::{Entry, HardState};
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};

/// Sizes of a [`Wal`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalConfig {
    /// The size of a segment; a larger batch gets a segment of its own size.
    pub segment_bytes: u64,
    /// How much of the latest entries stays in memory; older ones are read back.
    pub cache_bytes: u64,
}

impl Default for WalConfig {
    fn default() -> Self {
        WalConfig { segment_bytes: 16 << 20, cache_bytes: 32 << 20 }
    }
}

/// Where an entry is.
#[derive(Debug)]
struct Slot {
    term: u64,
    segment: u64,
    at: u64,
    len: u32,
    sum: u32,
    cached: Option<Entry>,
}

/// What replaying or writing frames has made of the log.
#[derive(Debug, Default)]
struct Index {
    hard_state: HardState,
    truncated: Position,
    /// The index of the first slot.
    first: u64,
    slots: VecDeque<Slot>,
    bytes: u64,
    cached_bytes: u64,
    /// Slots before this index are not cached.
    cached_from: u64,
}

impl Index {
    fn last(&self) -> Position {
        match self.slots.back() {
            Some(slot) => Position { index: self.first + self.slots.len() as u64 - 1, term: slot.term },
            None => self.truncated,
        }
    }

    fn slot(&self, index: u64) -> Option<&Slot> {
        self.slots.get(usize::try_from(index.checked_sub(self.first)?).ok()?)
    }

    fn forget(&mut self, slot: &Slot) {
        self.bytes -= u64::from(slot.len);
        if slot.cached.is_some() {
            self.cached_bytes -= u64::from(slot.len);
        }
    }

    fn push(&mut self, index: u64, slot: Slot) -> Result<(), String> {
        if index <= self.truncated.index {
            return Err(format!("entry {index} is not after the truncation at {}", self.truncated.index));
        }
        while self.slots.back().is_some() && self.last().index >= index {
            if let Some(old) = self.slots.pop_back() {
                self.forget(&old);
            }
        }
        if self.slots.is_empty() {
            self.first = index;
        } else if index != self.last().index + 1 {
            return Err(format!("entry {index} follows entry {}", self.last().index));
        }
        self.bytes += u64::from(slot.len);
        self.cached_bytes += u64::from(slot.len);
        self.cached_from = self.cached_from.min(index);
        self.slots.push_back(slot);
        Ok(())
    }

    fn truncate(&mut self, to: Position) {
        while self.first <= to.index {
            let Some(slot) = self.slots.pop_front() else { break };
            self.forget(&slot);
            self.first += 1;
        }
        if to.index > self.truncated.index {
            self.truncated = to;
        }
    }

    fn reset(&mut self, to: Position) {
        self.slots.clear();
        (self.bytes, self.cached_bytes) = (0, 0);
        self.truncated = to;
    }

    fn evict(&mut self, budget: u64) {
        self.cached_from = self.cached_from.max(self.first);
        while self.cached_bytes > budget && self.cached_from < self.last().index {
            let at = (self.cached_from - self.first) as usize;
            if let Some(slot) = self.slots.get_mut(at)
                && slot.cached.take().is_some()
            {
                self.cached_bytes -= u64::from(slot.len);
            }
            self.cached_from += 1;
        }
    }

    /// Takes up a record of the frame whose payload starts at `base` of `segment`.
    fn replay(&mut self, record: Record, segment: u64, base: u64, payload: &[u8]) -> Result<(), String> {
        match record {
            Record::HardState(hard_state) => self.hard_state = hard_state,
            Record::Truncated(to) => self.truncate(to),
            Record::Reset(to) => self.reset(to),
            Record::Entry(entry, at, len) => {
                let sum = crc32c::crc32c(&payload[at as usize..(at + len) as usize]);
                let (index, term) = (entry.index, entry.term);
                let at = base + u64::from(at);
                self.push(index, Slot { term, segment, at, len, sum, cached: Some(entry) })?;
            }
        }
        Ok(())
    }
}

/// The log on a real disk.
#[derive(Debug)]
pub(crate) struct Wal {
    dir: PathBuf,
    config: WalConfig,
    index: Index,
    segments: BTreeMap<u64, Segment>,
    /// The segment being written.
    current: u64,
    /// Where its next frame goes.
    end: u64,
    /// The next frame's number.
    sequence: u64,
    spare: Option<Spare>,
    /// Whether the last frame was not synced.
    unsynced: bool,
    /// Whether something unfinished stands at `end`.
    torn: bool,
    stopped: bool,
}

/// A frame in its segment.
struct Written {
    /// Where its payload starts.
    base: u64,
    /// Where its entries are in that, and how long.
    places: Vec<(u32, u32)>,
    bytes: Vec<u8>,
}

/// What is readable of a log that may be damaged.
#[derive(Debug)]
pub(crate) struct Salvage {
    /// The hard state read last.
    pub(crate) hard_state: HardState,
    /// The truncation point read last.
    pub(crate) truncated: Position,
    /// The entries up to the damage.
    pub(crate) entries: Vec<Entry>,
    /// The damage, if any.
    pub(crate) damage: Option<LogError>,
}

impl Wal {
    /// Makes an empty log that goes on after `base`. The directory must not hold one.
    pub(crate) fn create(
        dir: &Path,
        config: WalConfig,
        base: Position,
        hard_state: &HardState,
        salt: u32,
    ) -> Result<Self, LogError> {
        durable::create_dir(dir).map_err(io_error("create", dir))?;
        if let Some(path) = segment::list(dir)?.into_iter().next() {
            return Err(LogError::Misuse(format!("make a new log where {} is", path.display())));
        }
        let len = config.segment_bytes.max(4096);
        let zeroed = segment::zeroed(dir, len).map_err(io_error("prepare a segment in", dir))?;
        let segment = Segment::create(dir, 1, salt, zeroed, len)?;
        let mut wal = Wal {
            dir: dir.to_owned(),
            config,
            index: Index::default(),
            segments: BTreeMap::from([(1, segment)]),
            current: 1,
            end: segment::HEAD as u64,
            sequence: 1,
            spare: Some(Spare::start(dir, len)),
            unsynced: false,
            torn: false,
            stopped: false,
        };
        wal.write(&Batch { reset: Some(base), entries: Vec::new(), hard_state: Some(hard_state.clone()) })?;
        wal.sync()?;
        Ok(wal)
    }

    /// Opens a log, cuts a torn tail, refuses damage.
    ///
    /// `covered` gives the places that whole snapshots cover, oldest first. It is asked only when the oldest segments
    /// are gone: where such a place reaches to what is left, the log goes on from there.
    pub(crate) fn open(
        dir: &Path,
        config: WalConfig,
        covered: impl FnOnce() -> Vec<Position>,
    ) -> Result<Self, LogError> {
        let (mut wal, mut damage) = Self::read(dir, config)?;
        let bridge = if wal.lacks_beginning() { wal.bridge(&covered()) } else { None };
        if bridge.is_some() {
            damage = None;
        }
        if let Some(damage) = damage {
            return Err(damage);
        }
        if std::mem::take(&mut wal.torn) {
            let current = wal.current()?;
            tracing::warn!(path = %current.path().display(), at = wal.end, "cut the tail that a crash tore");
            current.cut(wal.end)?;
        }
        wal.index.evict(config.cache_bytes);
        wal.spare = Some(Spare::start(dir, config.segment_bytes.max(4096)));
        if let Some(to) = bridge {
            let (first, truncated) = (wal.index.first, wal.index.truncated.index);
            tracing::warn!(
                first,
                truncated,
                snapshot = to.index,
                "the oldest log segments are gone; a snapshot covers what they held, and the log goes on from it"
            );
            wal.cut_below(to)?;
        }
        Ok(wal)
    }

    /// Whether entries after the truncation point are missing before those that are there.
    fn lacks_beginning(&self) -> bool {
        !self.index.slots.is_empty() && self.index.first > self.index.truncated.index + 1
    }

    /// The first of these places, all of them committed, from which what is left of the log goes on without a gap.
    fn bridge(&self, covered: &[Position]) -> Option<Position> {
        let index = &self.index;
        let before = |at: &Position| at.index + 1 == index.first;
        let within = |at: &Position| index.slot(at.index).is_some_and(|slot| slot.term == at.term);
        covered.iter().find(|at| before(at) || within(at)).copied()
    }

    /// Reads what can be read and changes nothing. For `recover` alone.
    pub(crate) fn salvage(dir: &Path) -> Result<Salvage, LogError> {
        let (wal, damage) = Self::read(dir, WalConfig { segment_bytes: 0, cache_bytes: u64::MAX })?;
        let Index { hard_state, truncated, slots, .. } = wal.index;
        let entries = slots.into_iter().filter_map(|s| s.cached).collect();
        Ok(Salvage { hard_state, truncated, entries, damage })
    }

    fn read(dir: &Path, config: WalConfig) -> Result<(Self, Option<LogError>), LogError> {
        let paths = segment::list(dir)?;
        let mut wal = Wal {
            dir: dir.to_owned(),
            config,
            index: Index::default(),
            segments: BTreeMap::new(),
            current: 0,
            end: 0,
            sequence: 0,
            spare: None,
            unsynced: false,
            torn: false,
            stopped: false,
        };
        for (n, path) in paths.iter().enumerate() {
            if let Err(damage) = wal.replay_segment(path, n + 1 == paths.len()) {
                return Ok((wal, Some(damage)));
            }
        }
        let damage = wal.check_whole();
        Ok((wal, damage))
    }

    fn check_whole(&self) -> Option<LogError> {
        let damaged = |why: String| LogError::Damaged { path: self.dir.clone(), offset: 0, why };
        let index = &self.index;
        if self.sequence < 2 {
            return Some(damaged("it holds no frame".into()));
        }
        if self.lacks_beginning() {
            let (first, after) = (index.first, index.truncated.index);
            return Some(damaged(format!(
                "its first entry is {first}, it was truncated at {after}, and no whole snapshot covers what is between"
            )));
        }
        let (commit, last) = (index.hard_state.commit, index.last().index);
        if commit > last {
            return Some(damaged(format!("entry {commit} was committed, and it ends at {last}")));
        }
        None
    }

    fn replay_segment(&mut self, path: &Path, is_last: bool) -> Result<(), LogError> {
        let (segment, bytes) = Segment::open(path)?;
        let (id, salt) = (segment.first, segment.salt);
        let damaged = |offset: usize, why: String| LogError::Damaged {
            path: path.to_owned(),
            offset: offset as u64,
            why,
        };
        if Segment::path_of(&self.dir, id) != path {
            return Err(damaged(0, format!("its head says that it starts with frame {id}")));
        }
        if self.sequence == 0 {
            self.sequence = id;
        } else if self.sequence != id {
            return Err(damaged(0, format!("frame {} is missing before it", self.sequence)));
        }
        let mut at = segment::HEAD;
        while let Some(found) = frame::parse(&bytes, at, salt) {
            if found.sequence != self.sequence {
                return Err(damaged(
                    at,
                    format!("frame {} stands where {} was due", found.sequence, self.sequence),
                ));
            }
            let base = (at + frame::HEAD) as u64;
            for record in frame::records(found.payload) {
                self.index.replay(record?, id, base, found.payload).map_err(|why| damaged(at, why))?;
            }
            self.index.evict(self.config.cache_bytes);
            self.sequence += 1;
            at = found.end;
        }
        if let Some(next) = frame::find_after(&bytes, at, salt) {
            return Err(damaged(
                at,
                format!("frame {} is broken and a whole one follows at {next}", self.sequence),
            ));
        }
        self.torn = bytes[at.min(bytes.len())..].iter().any(|byte| *byte != 0);
        if !is_last && self.torn {
            return Err(damaged(
                at,
                format!("frame {} is broken and another segment follows", self.sequence),
            ));
        }
        self.segments.insert(id, segment);
        (self.current, self.end) = (id, at as u64);
        Ok(())
    }

    fn current(&self) -> Result<&Segment, LogError> {
        self.segments.get(&self.current).ok_or_else(|| LogError::Misuse("write without a segment".into()))
    }

    /// Writes one frame, in a new segment when this one is full.
    fn append(
        &mut self,
        build: impl Fn(Option<(&HardState, Position)>) -> Builder,
    ) -> Result<Written, LogError> {
        self.flush()?;
        let mut built = build(None);
        // A segment of an earlier run may be larger than they are now.
        let len = self.current()?.len.min(self.config.segment_bytes.max(4096));
        if self.end + built.size() as u64 > len {
            built = build(Some((&self.index.hard_state, self.index.truncated)));
            self.rotate(built.size() as u64)?;
        }
        let segment = self.current()?;
        let places = std::mem::take(&mut built.entries);
        let bytes = built.finish(self.sequence, segment.salt);
        segment.write(&bytes, self.end)?;
        self.unsynced = true;
        let base = self.end + frame::HEAD as u64;
        self.end += bytes.len() as u64;
        self.sequence += 1;
        Ok(Written { base, places, bytes })
    }

    fn flush(&mut self) -> Result<(), LogError> {
        if self.unsynced {
            self.current()?.sync()?;
            self.unsynced = false;
        }
        Ok(())
    }

    fn rotate(&mut self, frame: u64) -> Result<(), LogError> {
        let usual = self.config.segment_bytes.max(4096);
        let len = usual.max(segment::HEAD as u64 + frame);
        let salt = self.current()?.salt.wrapping_mul(0x9e37_79b9).wrapping_add(self.sequence as u32);
        let file = match self.spare.take() {
            Some(spare) => spare.take(&self.dir, len, len == usual)?,
            None => segment::zeroed(&self.dir, len).map_err(io_error("prepare a segment in", &self.dir))?,
        };
        let segment = Segment::create(&self.dir, self.sequence, salt, file, len)?;
        self.current = segment.first;
        self.end = segment::HEAD as u64;
        self.segments.insert(segment.first, segment);
        self.spare = Some(Spare::start(&self.dir, usual));
        Ok(())
    }

    fn write_batch(&mut self, batch: &Batch) -> Result<(), LogError> {
        let Written { base, places, bytes } = self.append(|checkpoint| Builder::new(batch, checkpoint))?;
        let misuse = |why: String| LogError::Misuse(format!("write a batch that does not follow: {why}"));
        if let Some(position) = batch.reset {
            self.index.reset(position);
        }
        let payload = &bytes[frame::HEAD..];
        for (entry, (at, len)) in batch.entries.iter().zip(places) {
            let record = Record::Entry(entry.clone(), at, len);
            self.index.replay(record, self.current, base, payload).map_err(misuse)?;
        }
        if let Some(hard_state) = &batch.hard_state {
            self.index.hard_state = hard_state.clone();
        }
        self.index.evict(self.config.cache_bytes);
        if batch.reset.is_some() {
            // What replaces them must be there before the old segments go.
            self.flush()?;
            self.drop_segments()?;
        }
        Ok(())
    }

    /// Forgets entries up to a place, durably.
    fn cut_below(&mut self, to: Position) -> Result<(), LogError> {
        self.append(|checkpoint| Builder::truncation(to, checkpoint))?;
        self.flush()?;
        self.index.truncate(to);
        self.drop_segments()
    }

    /// Removes the oldest segments that hold no entry of the log any more.
    fn drop_segments(&mut self) -> Result<(), LogError> {
        let needed = self.index.slots.front().map_or(self.current, |slot| slot.segment);
        while let Some((&first, segment)) = self.segments.first_key_value()
            && first < needed
        {
            let path = segment.path().to_owned();
            durable::remove_file(&path).map_err(io_error("remove", &path))?;
            self.segments.remove(&first);
        }
        Ok(())
    }

    fn read_back(&self, slot: &Slot) -> Result<Entry, LogError> {
        let gone = || LogError::Misuse(format!("read from segment {}, which is gone", slot.segment));
        let segment = self.segments.get(&slot.segment).ok_or_else(gone)?;
        let bytes = segment.read(slot.at, slot.len as usize)?;
        if crc32c::crc32c(&bytes) != slot.sum {
            let why = "an entry reads back otherwise than it was written".to_owned();
            return Err(LogError::Damaged { path: segment.path().to_owned(), offset: slot.at, why });
        }
        Ok(frame::read_entry(&bytes)?)
    }

    fn guard<T>(&mut self, act: impl FnOnce(&mut Self) -> Result<T, LogError>) -> Result<T, LogError> {
        if self.stopped {
            return Err(LogError::Stopped);
        }
        let done = act(self);
        self.stopped = done.is_err();
        done
    }
}

impl RaftLog for Wal {
    fn hard_state(&self) -> HardState {
        self.index.hard_state.clone()
    }

    fn truncated(&self) -> Position {
        self.index.truncated
    }

    fn last(&self) -> Position {
        self.index.last()
    }

    fn term(&self, index: u64) -> Option<u64> {
        if index == self.index.truncated.index {
            return Some(self.index.truncated.term);
        }
        self.index.slot(index).map(|s| s.term)
    }

    fn entries(&self, low: u64, high: u64, max_bytes: u64) -> Result<Vec<Entry>, LogError> {
        let mut taken = 0;
        let mut entries = Vec::new();
        for index in low..high {
            let slot = self.index.slot(index);
            let slot =
                slot.ok_or_else(|| LogError::Misuse(format!("read entry {index}, which it has not")))?;
            taken += u64::from(slot.len);
            if taken > max_bytes && !entries.is_empty() {
                break;
            }
            entries.push(match &slot.cached {
                Some(entry) => entry.clone(),
                None => self.read_back(slot)?,
            });
        }
        Ok(entries)
    }

    fn write(&mut self, batch: &Batch) -> Result<(), LogError> {
        self.guard(|wal| if batch.is_empty() { Ok(()) } else { wal.write_batch(batch) })
    }

    fn sync(&mut self) -> Result<(), LogError> {
        self.guard(Wal::flush)
    }

    fn compact(&mut self, index: u64) -> Result<(), LogError> {
        if index <= self.index.truncated.index {
            return Ok(());
        }
        let missing = || LogError::Misuse(format!("forget entries up to {index}, which it has not"));
        let term = self.term(index).ok_or_else(missing)?;
        self.guard(|wal| wal.cut_below(Position { index, term }))
    }

    fn bytes(&self) -> u64 {
        self.index.bytes
    }
}

#[cfg(test)]
mod tests;
