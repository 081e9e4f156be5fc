use super::*;
use sealane_core::identity::ClusterId;
use sealane_core::name::{ClusterName, NetworkName, TrustDomain};
use sealane_core::view::{Peer, Standing};

fn name(n: u32) -> ClusterName {
    ClusterName::parse(&format!("c{n}")).unwrap()
}

fn key(n: u32) -> ViewKey {
    ViewKey::Peer(name(n))
}

/// An item whose value is told by its id.
fn item(n: u32, value: u64) -> ViewItem {
    ViewItem::Peer(Arc::new(Peer {
        id: ClusterId(value),
        name: name(n),
        trust_domain: TrustDomain::parse("x").unwrap(),
        bundle: None,
        network: NetworkName::parse("n").unwrap(),
        gateways: Arc::default(),
        probes: Arc::default(),
        exports_to_us: true,
        imports_from_us: false,
        standing: Standing::Live,
    }))
}

fn at(index: u64) -> Revision {
    Revision { generation: 1, index }
}

/// What a client of the stream holds.
#[derive(Default, PartialEq, Debug)]
struct Client {
    items: BTreeMap<ViewKey, ViewItem>,
    revision: Revision,
    synced: Option<bool>,
}

impl Client {
    fn take(&mut self, kind: pb::watch_reply::Kind) {
        match kind {
            pb::watch_reply::Kind::Delta(delta) => {
                for gone in delta.deletes {
                    self.items.remove(&ViewKey::from_wire(gone).unwrap());
                }
                for one in delta.upserts {
                    let one = ViewItem::from_wire(one).unwrap();
                    let ViewItem::Peer(peer) = &one else { panic!("{one:?}") };
                    self.items.insert(ViewKey::Peer(peer.name.clone()), one);
                }
                self.move_to(delta.revision);
            }
            pb::watch_reply::Kind::Synced(synced) => {
                self.move_to(synced.revision);
                self.synced = Some(synced.full);
            }
            other => panic!("{other:?}"),
        }
    }

    fn move_to(&mut self, revision: Option<types::Revision>) {
        let revision = Revision::from_wire(revision.unwrap()).unwrap();
        assert!(revision >= self.revision, "a revision never goes back");
        self.revision = revision;
    }

    fn drain(&mut self, cursor: &mut Cursor, channel: &Channel) -> usize {
        std::iter::from_fn(|| cursor.next(channel).unwrap()).map(|kind| self.take(kind)).count()
    }
}

fn live(channel: &Channel) -> BTreeSet<ViewKey> {
    channel.keys().cloned().collect()
}

use std::collections::BTreeSet;

#[test]
fn a_new_watcher_gets_everything_and_then_the_difference() {
    let mut channel = Channel::new(at(1));
    (0..10).for_each(|n| assert!(channel.put(at(1), &key(n), Some(&item(n, 1)))));
    let (mut client, mut cursor) = (Client::default(), Cursor::full(&channel, BTreeMap::new()));
    client.drain(&mut cursor, &channel);
    assert_eq!((client.items.len(), client.revision, client.synced), (10, at(1), Some(true)));
    assert!(!channel.put(at(2), &key(3), Some(&item(3, 1))), "the same value is no news");
    channel.put(at(2), &key(3), Some(&item(3, 2)));
    channel.put(at(2), &key(4), None);
    channel.advance(at(3));
    assert_eq!(client.drain(&mut cursor, &channel), 1);
    assert_eq!(client.items.get(&key(3)), Some(&item(3, 2)));
    assert_eq!((client.items.len(), client.revision), (9, at(3)));
}

#[test]
fn a_slow_watcher_gets_the_latest_value_once() {
    let mut channel = Channel::new(at(0));
    let (mut client, mut cursor) = (Client::default(), Cursor::full(&channel, BTreeMap::new()));
    client.drain(&mut cursor, &channel);
    for revision in 1..=1_000 {
        channel.put(at(revision), &key(1), Some(&item(1, revision)));
        channel.advance(at(revision));
    }
    assert_eq!(client.drain(&mut cursor, &channel), 1);
    assert_eq!(client.items.get(&key(1)), Some(&item(1, 1_000)));
    assert_eq!(channel.order.len(), 1, "only the latest value has a place");
}

#[test]
fn large_views_come_in_bounded_chunks_even_while_they_change() {
    let mut channel = Channel::new(at(1));
    (0..5_000).for_each(|n| assert!(channel.put(at(1), &key(n), Some(&item(n, 1)))));
    let (mut client, mut cursor) = (Client::default(), Cursor::full(&channel, BTreeMap::new()));
    let mut revision = 1;
    let mut chunks = 0;
    while let Some(kind) = cursor.next(&channel).unwrap() {
        if let pb::watch_reply::Kind::Delta(delta) = &kind {
            assert!(delta.upserts.len() + delta.deletes.len() <= CHUNK_ITEMS);
            chunks += 1;
        }
        client.take(kind);
        if revision < 4 {
            revision += 1;
            channel.put(at(revision), &key(4_999), Some(&item(4_999, revision)));
            channel.put(at(revision), &key(u32::try_from(revision).unwrap()), None);
            channel.advance(at(revision));
        }
    }
    assert!(chunks >= 5, "{chunks}");
    assert_eq!(client.items.keys().cloned().collect::<BTreeSet<_>>(), live(&channel));
    assert_eq!(client.items.get(&key(4_999)), Some(&item(4_999, 4)));
    assert_eq!((client.revision, client.synced), (at(4), Some(true)));
}

#[test]
fn a_resumed_watcher_comes_to_the_same_as_one_that_stayed() {
    let mut channel = Channel::new(at(1));
    (0..50).for_each(|n| assert!(channel.put(at(1), &key(n), Some(&item(n, 1)))));
    let (mut client, mut cursor) = (Client::default(), Cursor::full(&channel, BTreeMap::new()));
    client.drain(&mut cursor, &channel);
    channel.put(at(2), &key(7), None);
    channel.put(at(3), &key(8), Some(&item(8, 3)));
    channel.advance(at(3));
    let mut cursor = Cursor::resume(&channel, client.revision).unwrap();
    client.drain(&mut cursor, &channel);
    assert_eq!((client.items.len(), client.synced), (49, Some(false)));
    assert_eq!(client.items.get(&key(8)), Some(&item(8, 3)));
}

#[test]
fn below_what_was_forgotten_and_beyond_the_head_nobody_resumes() {
    let mut channel = Channel::new(at(10));
    let compacted = ResumeError::Compacted { asked: at(9), oldest: at(10) };
    assert_eq!(Cursor::resume(&channel, at(9)).unwrap_err(), compacted);
    assert_eq!(
        Cursor::resume(&channel, at(11)).unwrap_err(),
        ResumeError::Ahead { asked: at(11), head: at(10) }
    );
    for n in 0..=u32::try_from(TOMBSTONES).unwrap() {
        channel.put(at(11), &key(n), Some(&item(n, 1)));
        channel.put(at(12), &key(n), None);
    }
    channel.advance(at(12));
    assert_eq!(channel.slots.len(), TOMBSTONES);
    assert!(Cursor::resume(&channel, at(11)).is_err());
    assert!(Cursor::resume(&channel, at(12)).is_ok());
}

#[test]
fn digests_leave_out_what_is_held_and_delete_what_is_gone() {
    let mut channel = Channel::new(at(1));
    (0..5).for_each(|n| assert!(channel.put(at(1), &key(n), Some(&item(n, 1)))));
    let digest = |n, value| (key(n), sealane_proto::digest::view_item(&item(n, value)));
    let held = BTreeMap::from([digest(0, 1), digest(1, 99), digest(77, 1)]);
    let mut cursor = Cursor::full(&channel, held);
    let Ok(Some(pb::watch_reply::Kind::Delta(delta))) = cursor.next(&channel) else { panic!("no delta") };
    assert_eq!(delta.deletes, [key(77).to_wire()]);
    assert_eq!(delta.upserts.len(), 4, "all but the one that is held");
    let synced = pb::Synced { revision: Some(at(1).to_wire()), full: true };
    assert_eq!(cursor.next(&channel), Ok(Some(pb::watch_reply::Kind::Synced(synced))));
    assert_eq!(cursor.next(&channel), Ok(None));
}

#[test]
fn what_is_deleted_between_the_digests_and_the_first_message_is_deleted_at_the_client() {
    let mut channel = Channel::new(at(1));
    (0..5).for_each(|n| assert!(channel.put(at(1), &key(n), Some(&item(n, 1)))));
    let items: BTreeMap<_, _> = (0..5).map(|n| (key(n), item(n, 1))).collect();
    let held =
        items.iter().map(|(key, item)| (key.clone(), sealane_proto::digest::view_item(item))).collect();
    let (mut client, mut cursor) = (Client { items, ..Client::default() }, Cursor::full(&channel, held));
    channel.put(at(2), &key(2), None);
    channel.put(at(2), &key(3), Some(&item(3, 2)));
    channel.advance(at(2));
    client.drain(&mut cursor, &channel);
    assert_eq!(client.items.keys().cloned().collect::<BTreeSet<_>>(), live(&channel));
    assert_eq!(client.items.get(&key(3)), Some(&item(3, 2)));
    assert_eq!((client.revision, client.synced), (at(2), Some(true)));
}

#[test]
fn a_watcher_that_was_slower_than_deletions_are_kept_must_begin_anew() {
    let mut channel = Channel::new(at(1));
    channel.put(at(1), &key(0), Some(&item(0, 1)));
    let (mut slow, mut fresh) = (Client::default(), Cursor::full(&channel, BTreeMap::new()));
    let mut begun = Cursor::full(&channel, BTreeMap::new());
    slow.drain(&mut begun, &channel);
    channel.put(at(2), &key(0), None);
    for n in 1..=u32::try_from(TOMBSTONES).unwrap() {
        channel.put(at(3), &key(n), Some(&item(n, 1)));
        channel.put(at(4), &key(n), None);
    }
    channel.advance(at(4));
    let outrun = Err(ResumeError::Compacted { asked: at(1), oldest: at(2) });
    assert_eq!(begun.next(&channel), outrun, "that item 0 is gone was forgotten");
    assert_eq!(fresh.next(&channel), outrun, "a first run is one as of its beginning");
}

#[test]
fn an_idle_watcher_is_told_how_far_it_is_and_not_twice() {
    let mut channel = Channel::new(at(1));
    let (mut client, mut cursor) = (Client::default(), Cursor::full(&channel, BTreeMap::new()));
    client.drain(&mut cursor, &channel);
    assert_eq!(cursor.progress(), None);
    channel.advance(at(9));
    assert_eq!(cursor.next(&channel), Ok(None));
    client.take(cursor.progress().unwrap());
    assert_eq!((client.revision, client.synced), (at(9), Some(false)));
    assert_eq!(cursor.progress(), None);
}
