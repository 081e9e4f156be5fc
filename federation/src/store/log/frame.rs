//! Frames: one batch each, whole or not at all.
//!
//! ```text
//! magic u32 | length u32 | sequence u64 | crc32c u32 | 0 u32 | payload | padding to 8
//! payload = (kind u8 | length u32 | bytes)*
//! ```
//!
//! The checksum covers length, sequence and payload and starts from the segment's salt, so that bytes inside a
//! command can not pass for a frame.

use crate::consensus::wire::{self, WireError};
use crate::store::log::{Batch, Position};
use raft::eraftpb::{Entry, HardState};
use sealane_proto::peer::v1 as pb;

/// The size of a frame without its payload.
pub(crate) const HEAD: usize = 24;
/// Frames start at multiples of this.
pub(crate) const ALIGN: usize = 8;
const RECORD_HEAD: usize = 5;
const MAGIC: u32 = 0x5ea1_f4a3;

const KIND_ENTRY: u8 = 1;
const KIND_HARD_STATE: u8 = 2;
const KIND_TRUNCATED: u8 = 3;
const KIND_RESET: u8 = 4;

/// One record of a frame.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Record {
    /// An entry, and where its bytes are: offset in the payload, length.
    Entry(Entry, u32, u32),
    /// The hard state.
    HardState(HardState),
    /// Entries up to here are forgotten.
    Truncated(Position),
    /// All entries are forgotten, and the log goes on after here.
    Reset(Position),
}

/// A frame under construction.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    bytes: Vec<u8>,
    /// Offset in the payload and length of each entry, in order.
    pub(crate) entries: Vec<(u32, u32)>,
}

impl Builder {
    /// A frame of a batch; `checkpoint` repeats what would be lost with the segments before.
    pub(crate) fn new(batch: &Batch, checkpoint: Option<(&HardState, Position)>) -> Self {
        let mut frame = Builder { bytes: vec![0; HEAD], entries: Vec::with_capacity(batch.entries.len()) };
        if let Some((hard_state, truncated)) = checkpoint {
            frame.record(KIND_HARD_STATE, &wire::hard_state_to_wire(hard_state));
            frame.record(KIND_TRUNCATED, &position_to_wire(truncated));
        }
        if let Some(position) = batch.reset {
            frame.record(KIND_RESET, &position_to_wire(position));
        }
        for entry in &batch.entries {
            let (at, len) = frame.record(KIND_ENTRY, &wire::entry_to_wire(entry.clone()));
            frame.entries.push((at, len));
        }
        if let Some(hard_state) = &batch.hard_state {
            frame.record(KIND_HARD_STATE, &wire::hard_state_to_wire(hard_state));
        }
        frame
    }

    /// A frame that moves the truncation point.
    pub(crate) fn truncation(to: Position, checkpoint: Option<(&HardState, Position)>) -> Self {
        let mut frame = Builder::new(&Batch::default(), checkpoint);
        frame.record(KIND_TRUNCATED, &position_to_wire(to));
        frame
    }

    fn record(&mut self, kind: u8, message: &impl prost::Message) -> (u32, u32) {
        let len = message.encoded_len();
        self.bytes.push(kind);
        self.bytes.extend_from_slice(&(len as u32).to_le_bytes());
        let at = self.bytes.len() - HEAD;
        message.encode(&mut self.bytes).expect("a Vec grows");
        (at as u32, len as u32)
    }

    /// The bytes to write.
    pub(crate) fn finish(mut self, sequence: u64, salt: u32) -> Vec<u8> {
        let payload = self.bytes.len() - HEAD;
        let padded = self.bytes.len().next_multiple_of(ALIGN);
        let sum = checksum(sequence, &self.bytes[HEAD..], salt);
        self.bytes[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        self.bytes[4..8].copy_from_slice(&(payload as u32).to_le_bytes());
        self.bytes[8..16].copy_from_slice(&sequence.to_le_bytes());
        self.bytes[16..20].copy_from_slice(&sum.to_le_bytes());
        self.bytes.resize(padded, 0);
        self.bytes
    }

    /// The size that `finish` will give.
    pub(crate) fn size(&self) -> usize {
        self.bytes.len().next_multiple_of(ALIGN)
    }
}

fn checksum(sequence: u64, payload: &[u8], salt: u32) -> u32 {
    let sum = crc32c::crc32c_append(salt, &sequence.to_le_bytes());
    let sum = crc32c::crc32c_append(sum, &(payload.len() as u32).to_le_bytes());
    crc32c::crc32c_append(sum, payload)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// A whole frame found in a segment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame<'a> {
    /// Its number.
    pub(crate) sequence: u64,
    /// Its records, not decoded.
    pub(crate) payload: &'a [u8],
    /// Where the next one starts.
    pub(crate) end: usize,
}

/// The frame at `at`, if one stands there whole.
pub(crate) fn parse(bytes: &[u8], at: usize, salt: u32) -> Option<Frame<'_>> {
    if u32_at(bytes, at)? != MAGIC {
        return None;
    }
    let length = u32_at(bytes, at + 4)? as usize;
    let sequence = u64_at(bytes, at + 8)?;
    let sum = u32_at(bytes, at + 16)?;
    if u32_at(bytes, at + 20)? != 0 {
        return None;
    }
    let payload = bytes.get(at + HEAD..(at + HEAD).checked_add(length)?)?;
    if checksum(sequence, payload, salt) != sum {
        return None;
    }
    Some(Frame { sequence, payload, end: (at + HEAD + length).next_multiple_of(ALIGN) })
}

/// A whole frame anywhere after `from`: the sign that what is broken before it was once followed.
pub(crate) fn find_after(bytes: &[u8], from: usize, salt: u32) -> Option<usize> {
    let start = from.next_multiple_of(ALIGN).max(from + 1).next_multiple_of(ALIGN);
    (start..bytes.len()).step_by(ALIGN).find(|at| parse(bytes, *at, salt).is_some())
}

/// The records of a frame.
pub(crate) fn records(payload: &[u8]) -> impl Iterator<Item = Result<Record, WireError>> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        if at >= payload.len() {
            return None;
        }
        let Some((kind, bytes)) = record_at(payload, at) else {
            at = payload.len();
            return Some(Err(WireError::Unknown("record length")));
        };
        let start = at + RECORD_HEAD;
        at = start + bytes.len();
        Some(read_record(kind, bytes, start as u32))
    })
}

fn record_at(payload: &[u8], at: usize) -> Option<(u8, &[u8])> {
    let kind = *payload.get(at)?;
    let length = u32_at(payload, at + 1)? as usize;
    let start = at + RECORD_HEAD;
    Some((kind, payload.get(start..start.checked_add(length)?)?))
}

fn read_record(kind: u8, bytes: &[u8], at: u32) -> Result<Record, WireError> {
    Ok(match kind {
        KIND_ENTRY => Record::Entry(read_entry(bytes)?, at, bytes.len() as u32),
        KIND_HARD_STATE => Record::HardState(wire::hard_state_from_wire(&wire::decode("hard state", bytes)?)),
        KIND_TRUNCATED => Record::Truncated(position_from_wire(bytes)?),
        KIND_RESET => Record::Reset(position_from_wire(bytes)?),
        _ => return Err(WireError::Unknown("record kind")),
    })
}

/// The entry of these record bytes.
pub(crate) fn read_entry(bytes: &[u8]) -> Result<Entry, WireError> {
    wire::entry_from_wire(wire::decode::<pb::Entry>("entry", bytes)?)
}

fn position_to_wire(p: Position) -> pb::SnapshotMetadata {
    pb::SnapshotMetadata { conf_state: None, index: p.index, term: p.term }
}

fn position_from_wire(bytes: &[u8]) -> Result<Position, WireError> {
    let m: pb::SnapshotMetadata = wire::decode("truncation", bytes)?;
    Ok(Position { index: m.index, term: m.term })
}
