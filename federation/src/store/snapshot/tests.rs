use super::*;
use crate::consensus::machine::Record;
use sealane_core::identity::ServerId;

fn header(index: u64) -> Header {
    let mut metadata = SnapshotMetadata::default();
    (metadata.index, metadata.term) = (index, 2);
    metadata.mut_conf_state().set_voters(vec![1, 2, 3]);
    Header { metadata, min_version: 1, federation: FederationId([4; 16]) }
}

fn content() -> Vec<Record> {
    (0..2000u32).map(|n| (n.to_be_bytes().to_vec(), vec![n as u8; (n % 300) as usize])).collect()
}

fn write(dir: &Path, index: u64, records: &[Record]) -> PathBuf {
    let mut writer = Writer::create(dir, &header(index)).unwrap();
    for record in records {
        writer.push(record).unwrap();
    }
    writer.finish().unwrap()
}

#[test]
fn is_read_back_as_written() {
    let dir = tempfile::tempdir().unwrap();
    for records in [Vec::new(), content()] {
        let path = write(dir.path(), 9, &records);
        let reader = Reader::open(&path).unwrap();
        assert_eq!(*reader.header(), header(9));
        assert_eq!(reader.collect::<Result<Vec<_>, _>>().unwrap(), records);
        assert_eq!(verify(&path).unwrap(), header(9));
    }
}

#[test]
fn every_flipped_bit_and_every_shortening_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), 9, &content()[..20]);
    let whole = fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(&path, &bytes).unwrap();
        assert!(verify(&path).is_err(), "byte {at}");
        fs::write(&path, &whole[..at]).unwrap();
        assert!(verify(&path).is_err(), "length {at}");
    }
    fs::write(&path, [&whole[..], b"x"].concat()).unwrap();
    assert!(verify(&path).is_err());
}

#[test]
fn an_unfinished_one_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(dir.path(), &header(9)).unwrap();
    writer.push(&(b"k".to_vec(), b"v".to_vec())).unwrap();
    drop(writer);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn the_two_latest_of_use_are_kept_and_the_older_bounds_compaction() {
    let dir = tempfile::tempdir().unwrap();
    let truncated = Position { index: 20, term: 2 };
    let kept = || list(dir.path()).unwrap().iter().map(|n| n.position.index).collect::<Vec<_>>();
    write(dir.path(), 10, &[]);
    write(dir.path(), 20, &[]);
    assert_eq!(prune(dir.path(), truncated).unwrap(), truncated);
    assert_eq!(kept(), [20]);
    write(dir.path(), 30, &[]);
    assert_eq!(prune(dir.path(), truncated).unwrap(), Position { index: 20, term: 2 });
    write(dir.path(), 40, &[]);
    assert_eq!(prune(dir.path(), truncated).unwrap(), Position { index: 30, term: 2 });
    assert_eq!(kept(), [30, 40]);
}

#[test]
fn an_incoming_one_is_believed_only_whole() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let bytes = fs::read(write(from.path(), 9, &content())).unwrap();
    let position = header(9).position();
    let incoming = |size: u64, at: Position| Incoming::create(to.path(), ServerId(2), at, size).unwrap();

    let mut whole = incoming(bytes.len() as u64, position);
    for piece in bytes.chunks(1000) {
        whole.push(piece).unwrap();
    }
    let (found, path) = whole.finish(FederationId([4; 16])).unwrap();
    assert_eq!((found, verify(&path).unwrap()), (header(9), header(9)));
    fs::remove_file(path).unwrap();

    let mut short = incoming(bytes.len() as u64, position);
    short.push(&bytes[1..]).unwrap();
    assert!(short.finish(FederationId([4; 16])).is_err());
    let mut other = incoming(bytes.len() as u64, position);
    other.push(&bytes).unwrap();
    assert!(other.finish(FederationId([5; 16])).is_err());
    let mut elsewhere = incoming(bytes.len() as u64, Position { index: 8, term: 2 });
    elsewhere.push(&bytes).unwrap();
    assert!(elsewhere.finish(FederationId([4; 16])).is_err());
    assert!(incoming(3, position).push(&bytes).is_err());
    assert_eq!(fs::read_dir(to.path()).unwrap().count(), 0);
}
