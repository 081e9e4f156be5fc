//! Raft's own messages to and from ours, field by field.
//!
//! Law: no byte from a peer or a disk reaches raft unless every enum, size and order in it was checked here; message
//! kinds that only a server may give itself have no number on the wire at all.

use prost::Message as _;
use raft::eraftpb;
use sealane_proto::peer::v1 as pb;

/// Entries larger than this are refused wherever they come from.
pub(crate) const MAX_ENTRY_BYTES: usize = 4 << 20;
/// The most entries of one message.
pub(crate) const MAX_ENTRIES: usize = 65_536;
/// The size of a read's context: the asking server and its number.
pub(crate) const READ_CONTEXT_BYTES: usize = 16;
const MAX_CONTEXT_BYTES: usize = 64;
const MAX_SERVERS: usize = 64;

/// Why a message or a record is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// An enum or a required field has no known value.
    #[error("{0} is missing or unknown")]
    Unknown(&'static str),
    /// A field is outside what it may hold.
    #[error("{field} is {value}, outside what it may be")]
    OutOfRange {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// The bytes are no such message.
    #[error("{what} does not decode: {source}")]
    Decode {
        /// What was being read.
        what: &'static str,
        /// The codec's complaint.
        source: prost::DecodeError,
    },
}

fn out_of_range(field: &'static str, value: u64) -> WireError {
    WireError::OutOfRange { field, value }
}

fn bounded(field: &'static str, len: usize, most: usize) -> Result<(), WireError> {
    if len > most { Err(out_of_range(field, len as u64)) } else { Ok(()) }
}

/// Reads one of our messages.
pub(crate) fn decode<M: prost::Message + Default>(what: &'static str, bytes: &[u8]) -> Result<M, WireError> {
    M::decode(bytes).map_err(|source| WireError::Decode { what, source })
}

/// The message as it travels; `None` for a kind that never leaves its server.
pub(crate) fn message_to_wire(mut m: eraftpb::Message) -> Option<pb::RaftMessage> {
    let kind = message_type_to_wire(m.get_msg_type())?;
    let snapshot = m.snapshot.as_ref().filter(|s| s.get_metadata().index > 0);
    Some(pb::RaftMessage {
        r#type: kind.into(),
        to: m.to,
        from: m.from,
        term: m.term,
        log_term: m.log_term,
        index: m.index,
        commit: m.commit,
        commit_term: m.commit_term,
        snapshot: snapshot.map(|s| metadata_to_wire(s.get_metadata())),
        request_snapshot: m.request_snapshot,
        reject: m.reject,
        reject_hint: m.reject_hint,
        context: std::mem::take(&mut m.context),
        priority: m.priority,
        entries: m.take_entries().into_iter().map(entry_to_wire).collect(),
    })
}

/// The message of a peer, checked so that raft can take it without a panic.
pub(crate) fn message_from_wire(m: pb::RaftMessage) -> Result<eraftpb::Message, WireError> {
    let kind = pb::MessageType::try_from(m.r#type).map_err(|_| WireError::Unknown("message type"))?;
    let msg_type = message_type_from_wire(kind)?;
    check_shape(&m, kind)?;
    let mut out = eraftpb::Message::default();
    out.set_msg_type(msg_type);
    out.to = m.to;
    out.from = m.from;
    out.term = m.term;
    out.log_term = m.log_term;
    out.index = m.index;
    out.commit = m.commit;
    out.commit_term = m.commit_term;
    out.request_snapshot = m.request_snapshot;
    out.reject = m.reject;
    out.reject_hint = m.reject_hint;
    out.context = m.context;
    out.priority = m.priority;
    if let Some(metadata) = m.snapshot {
        let mut snapshot = eraftpb::Snapshot::default();
        snapshot.set_metadata(metadata_from_wire(metadata)?);
        out.set_snapshot(snapshot);
    }
    let read = matches!(kind, pb::MessageType::ReadIndex | pb::MessageType::ReadIndexResponse);
    let entries: Vec<_> = if read {
        m.entries.into_iter().map(read_entry_from_wire).collect::<Result<_, _>>()?
    } else {
        m.entries.into_iter().map(entry_from_wire).collect::<Result<_, _>>()?
    };
    out.set_entries(entries.into());
    Ok(out)
}

/// What raft takes for granted about a message of this kind.
fn check_shape(m: &pb::RaftMessage, kind: pb::MessageType) -> Result<(), WireError> {
    use pb::MessageType as T;
    if m.from == 0 {
        return Err(out_of_range("from", 0));
    }
    if m.to == 0 {
        return Err(out_of_range("to", 0));
    }
    bounded("entries", m.entries.len(), MAX_ENTRIES)?;
    bounded("context", m.context.len(), MAX_CONTEXT_BYTES)?;
    // Raft takes term 0 for a message of its own.
    if m.term == 0 && kind != T::ReadIndex {
        return Err(out_of_range("term", 0));
    }
    match kind {
        T::Append => {
            let mut term = m.log_term;
            for (expected, entry) in (m.index + 1..).zip(&m.entries) {
                if entry.index != expected {
                    return Err(out_of_range("entry index", entry.index));
                }
                if entry.term < term || entry.term == 0 || entry.term > m.term {
                    return Err(out_of_range("entry term", entry.term));
                }
                term = entry.term;
            }
        }
        T::ReadIndex | T::ReadIndexResponse => {
            let lengths: Vec<usize> = m.entries.iter().map(|e| e.data.len()).collect();
            if lengths != [READ_CONTEXT_BYTES] {
                return Err(out_of_range("read contexts", lengths.len() as u64));
            }
        }
        _ if !m.entries.is_empty() => return Err(out_of_range("entries", m.entries.len() as u64)),
        T::Snapshot if m.snapshot.is_none() => return Err(WireError::Unknown("snapshot")),
        _ => {}
    }
    Ok(())
}

fn message_type_to_wire(kind: eraftpb::MessageType) -> Option<pb::MessageType> {
    use eraftpb::MessageType as E;
    use pb::MessageType as T;
    Some(match kind {
        E::MsgAppend => T::Append,
        E::MsgAppendResponse => T::AppendResponse,
        E::MsgRequestVote => T::RequestVote,
        E::MsgRequestVoteResponse => T::RequestVoteResponse,
        E::MsgSnapshot => T::Snapshot,
        E::MsgHeartbeat => T::Heartbeat,
        E::MsgHeartbeatResponse => T::HeartbeatResponse,
        E::MsgTimeoutNow => T::TimeoutNow,
        E::MsgReadIndex => T::ReadIndex,
        E::MsgReadIndexResp => T::ReadIndexResponse,
        E::MsgRequestPreVote => T::RequestPreVote,
        E::MsgRequestPreVoteResponse => T::RequestPreVoteResponse,
        E::MsgHup
        | E::MsgBeat
        | E::MsgPropose
        | E::MsgUnreachable
        | E::MsgSnapStatus
        | E::MsgCheckQuorum
        | E::MsgTransferLeader => return None,
    })
}

fn message_type_from_wire(kind: pb::MessageType) -> Result<eraftpb::MessageType, WireError> {
    use eraftpb::MessageType as E;
    use pb::MessageType as T;
    Ok(match kind {
        T::Unspecified => return Err(WireError::Unknown("message type")),
        T::Append => E::MsgAppend,
        T::AppendResponse => E::MsgAppendResponse,
        T::RequestVote => E::MsgRequestVote,
        T::RequestVoteResponse => E::MsgRequestVoteResponse,
        T::Snapshot => E::MsgSnapshot,
        T::Heartbeat => E::MsgHeartbeat,
        T::HeartbeatResponse => E::MsgHeartbeatResponse,
        T::TimeoutNow => E::MsgTimeoutNow,
        T::ReadIndex => E::MsgReadIndex,
        T::ReadIndexResponse => E::MsgReadIndexResp,
        T::RequestPreVote => E::MsgRequestPreVote,
        T::RequestPreVoteResponse => E::MsgRequestPreVoteResponse,
    })
}

/// The entry as it travels and rests. The old kind of configuration change is never made here.
pub(crate) fn entry_to_wire(e: eraftpb::Entry) -> pb::Entry {
    let kind = match e.get_entry_type() {
        eraftpb::EntryType::EntryNormal => pb::EntryType::Normal,
        eraftpb::EntryType::EntryConfChange | eraftpb::EntryType::EntryConfChangeV2 => {
            pb::EntryType::ConfChange
        }
    };
    pb::Entry { r#type: kind.into(), term: e.term, index: e.index, data: e.data, context: e.context }
}

/// The entry of a peer or of the log.
pub(crate) fn entry_from_wire(e: pb::Entry) -> Result<eraftpb::Entry, WireError> {
    let kind = match pb::EntryType::try_from(e.r#type) {
        Ok(pb::EntryType::Normal) => eraftpb::EntryType::EntryNormal,
        Ok(pb::EntryType::ConfChange) => {
            conf_change_from_bytes(&e.data)?;
            eraftpb::EntryType::EntryConfChangeV2
        }
        Ok(pb::EntryType::Unspecified) | Err(_) => return Err(WireError::Unknown("entry type")),
    };
    bounded("entry data", e.data.len(), MAX_ENTRY_BYTES)?;
    bounded("entry context", e.context.len(), MAX_CONTEXT_BYTES)?;
    if e.index == 0 {
        return Err(out_of_range("entry index", 0));
    }
    if e.term == 0 {
        return Err(out_of_range("entry term", 0));
    }
    Ok(eraft_entry(kind, e))
}

/// A read's context travels as an entry that was never in a log.
fn read_entry_from_wire(e: pb::Entry) -> Result<eraftpb::Entry, WireError> {
    if e.r#type != i32::from(pb::EntryType::Normal) || e.index != 0 || e.term != 0 {
        return Err(WireError::Unknown("read context"));
    }
    Ok(eraft_entry(eraftpb::EntryType::EntryNormal, e))
}

fn eraft_entry(kind: eraftpb::EntryType, e: pb::Entry) -> eraftpb::Entry {
    let mut out = eraftpb::Entry::default();
    out.set_entry_type(kind);
    out.term = e.term;
    out.index = e.index;
    out.data = e.data;
    out.context = e.context;
    out
}

/// The metadata as it travels and rests.
pub(crate) fn metadata_to_wire(m: &eraftpb::SnapshotMetadata) -> pb::SnapshotMetadata {
    pb::SnapshotMetadata {
        conf_state: Some(conf_state_to_wire(m.get_conf_state())),
        index: m.index,
        term: m.term,
    }
}

/// The metadata of a peer's or our own snapshot.
pub(crate) fn metadata_from_wire(m: pb::SnapshotMetadata) -> Result<eraftpb::SnapshotMetadata, WireError> {
    let mut out = eraftpb::SnapshotMetadata { index: m.index, term: m.term, ..Default::default() };
    out.set_conf_state(conf_state_from_wire(m.conf_state.ok_or(WireError::Unknown("conf_state"))?)?);
    Ok(out)
}

/// The configuration as it travels and rests.
pub(crate) fn conf_state_to_wire(c: &eraftpb::ConfState) -> pb::ConfState {
    pb::ConfState {
        voters: c.voters.clone(),
        learners: c.learners.clone(),
        voters_outgoing: c.voters_outgoing.clone(),
        learners_next: c.learners_next.clone(),
        auto_leave: c.auto_leave,
    }
}

/// The configuration of a peer's or our own snapshot or image.
pub(crate) fn conf_state_from_wire(c: pb::ConfState) -> Result<eraftpb::ConfState, WireError> {
    for ids in [&c.voters, &c.learners, &c.voters_outgoing, &c.learners_next] {
        bounded("servers of a configuration", ids.len(), MAX_SERVERS)?;
        if ids.contains(&0) {
            return Err(out_of_range("server id", 0));
        }
    }
    let mut out = eraftpb::ConfState::default();
    out.set_voters(c.voters);
    out.set_learners(c.learners);
    out.set_voters_outgoing(c.voters_outgoing);
    out.set_learners_next(c.learners_next);
    out.auto_leave = c.auto_leave;
    Ok(out)
}

/// The hard state as it rests.
pub(crate) fn hard_state_to_wire(h: &eraftpb::HardState) -> pb::HardState {
    pb::HardState { term: h.term, vote: h.vote, commit: h.commit }
}

/// The hard state that rested.
pub(crate) fn hard_state_from_wire(h: &pb::HardState) -> eraftpb::HardState {
    eraftpb::HardState { term: h.term, vote: h.vote, commit: h.commit, ..Default::default() }
}

/// The change that an entry holds; no bytes mean leaving a joint configuration.
pub(crate) fn conf_change_from_bytes(bytes: &[u8]) -> Result<eraftpb::ConfChangeV2, WireError> {
    use eraftpb::{ConfChangeTransition as Transition, ConfChangeType as Kind};
    let change: pb::ConfChange = decode("configuration change", bytes)?;
    let mut out = eraftpb::ConfChangeV2::default();
    out.set_transition(match change.transition {
        0 => Transition::Auto,
        1 => Transition::Implicit,
        2 => Transition::Explicit,
        other => return Err(out_of_range("transition", other.into())),
    });
    bounded("changes", change.changes.len(), MAX_SERVERS)?;
    for step in change.changes {
        let kind = match step.kind {
            0 => Kind::AddNode,
            1 => Kind::RemoveNode,
            2 => Kind::AddLearnerNode,
            other => return Err(out_of_range("change kind", other.into())),
        };
        if step.server == 0 {
            return Err(out_of_range("server id", 0));
        }
        let mut single = eraftpb::ConfChangeSingle::default();
        single.set_change_type(kind);
        single.node_id = step.server;
        out.mut_changes().push(single);
    }
    out.context = change.context;
    Ok(out)
}

/// The bytes of an entry that adds a voter or a learner, or removes a server.
pub(crate) fn conf_change_bytes(kind: eraftpb::ConfChangeType, server: u64) -> Vec<u8> {
    let kind = match kind {
        eraftpb::ConfChangeType::AddNode => 0,
        eraftpb::ConfChangeType::RemoveNode => 1,
        eraftpb::ConfChangeType::AddLearnerNode => 2,
    };
    let changes = vec![pb::ConfChangeStep { kind, server }];
    pb::ConfChange { transition: 0, changes, context: bytes::Bytes::new() }.encode_to_vec()
}

#[cfg(test)]
mod tests;
