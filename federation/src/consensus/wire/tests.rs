use super::*;
use raft::eraftpb::{Message, MessageType};

fn append() -> pb::RaftMessage {
    let entry = |index, term| pb::Entry {
        r#type: pb::EntryType::Normal.into(),
        term,
        index,
        data: vec![1, 2].into(),
        context: bytes::Bytes::new(),
    };
    pb::RaftMessage {
        r#type: pb::MessageType::Append.into(),
        to: 2,
        from: 1,
        term: 5,
        log_term: 3,
        index: 7,
        entries: vec![entry(8, 3), entry(9, 5)],
        commit: 7,
        ..pb::RaftMessage::default()
    }
}

#[test]
fn every_kind_that_travels_comes_back_as_it_was() {
    let kinds = (1..=12).map(|n| pb::MessageType::try_from(n).unwrap());
    for kind in kinds {
        let mut message = pb::RaftMessage { r#type: kind.into(), entries: Vec::new(), ..append() };
        match kind {
            pb::MessageType::Append => message.entries = append().entries,
            pb::MessageType::ReadIndex | pb::MessageType::ReadIndexResponse => {
                let data = vec![7; READ_CONTEXT_BYTES].into();
                let r#type = pb::EntryType::Normal.into();
                message.entries = vec![pb::Entry { r#type, data, ..pb::Entry::default() }];
            }
            pb::MessageType::Snapshot => {
                let conf_state = pb::ConfState { voters: vec![1, 2], ..pb::ConfState::default() };
                message.snapshot =
                    Some(pb::SnapshotMetadata { conf_state: Some(conf_state), index: 7, term: 4 });
            }
            _ => {}
        }
        let raft = message_from_wire(message.clone()).unwrap();
        assert_eq!(message_to_wire(raft), Some(message));
    }
}

#[test]
fn what_a_server_says_only_to_itself_does_not_travel() {
    use MessageType as T;
    let local = [
        T::MsgHup,
        T::MsgBeat,
        T::MsgPropose,
        T::MsgUnreachable,
        T::MsgSnapStatus,
        T::MsgCheckQuorum,
        T::MsgTransferLeader,
    ];
    for kind in local {
        let mut message = Message::default();
        message.set_msg_type(kind);
        assert_eq!(message_to_wire(message), None);
    }
}

#[test]
fn what_raft_would_choke_on_is_refused() {
    type Spoil = fn(&mut pb::RaftMessage);
    let spoils: [(&str, Spoil); 13] = [
        ("unknown kind", |m| m.r#type = 77),
        ("no kind", |m| m.r#type = 0),
        ("no sender", |m| m.from = 0),
        ("no receiver", |m| m.to = 0),
        ("no term", |m| m.term = 0),
        ("a gap", |m| m.entries[1].index = 10),
        ("not from the start", |m| m.index = 6),
        ("a term going back", |m| m.entries[0].term = 2),
        ("a term to come", |m| m.entries[1].term = 6),
        ("an unknown entry", |m| m.entries[0].r#type = 9),
        ("a bad change", |m| {
            m.entries[0].r#type = pb::EntryType::ConfChange.into();
            m.entries[0].data = vec![0xff, 0xff].into();
        }),
        ("a read without context", |m| m.r#type = pb::MessageType::ReadIndex.into()),
        ("a snapshot without one", |m| {
            m.r#type = pb::MessageType::Snapshot.into();
            m.entries.clear();
        }),
    ];
    assert!(message_from_wire(append()).is_ok());
    for (what, spoil) in spoils {
        let mut message = append();
        spoil(&mut message);
        assert!(message_from_wire(message).is_err(), "{what}");
    }
    let mut large = append();
    large.entries[0].data = vec![0; MAX_ENTRY_BYTES + 1].into();
    assert!(message_from_wire(large).is_err());
}

#[test]
fn a_change_of_membership_is_laid_out_as_raft_reads_it() {
    use raft::eraftpb::{ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2};
    let mut single = ConfChangeSingle::default();
    single.set_change_type(ConfChangeType::AddLearnerNode);
    single.node_id = 9;
    let mut change = ConfChangeV2::default();
    change.mut_changes().push(single);
    let ours = conf_change_bytes(ConfChangeType::AddLearnerNode, 9);
    // By eraftpb.proto: changes = 2 { change_type = 1, node_id = 2 }.
    assert_eq!(ours, [0x12, 4, 0x08, 2, 0x10, 9]);
    assert_eq!(conf_change_from_bytes(&ours).unwrap(), change);
    change.set_transition(ConfChangeTransition::Explicit);
    assert_eq!(conf_change_from_bytes(&[&[0x08, 2], ours.as_slice()].concat()).unwrap(), change);
    assert_eq!(conf_change_from_bytes(&[]).unwrap(), ConfChangeV2::default());
    assert!(conf_change_from_bytes(&[0x08, 3]).is_err());
}
