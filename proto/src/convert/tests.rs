use super::*;
use crate::strategies;
use crate::{store, types};
use proptest::prelude::*;
use sealane_core::command::{CatalogChange, Command, Reply};
use sealane_core::state::{Record, RecordKey};
use sealane_core::view::{ViewItem, ViewKey};

fn comes_back<T: Wire + PartialEq + std::fmt::Debug>(value: &T) {
    assert_eq!(T::decode(&value.encode_checked().unwrap()).as_ref(), Ok(value));
}

proptest! {
    #[test]
    fn a_command_comes_back(value in strategies::command()) { comes_back(&value); }

    #[test]
    fn a_change_comes_back(value in strategies::catalog_change()) { comes_back(&value); }

    #[test]
    fn a_reply_comes_back(value in strategies::reply()) { comes_back(&value); }

    #[test]
    fn a_record_comes_back(value in strategies::record()) { comes_back(&value); }

    #[test]
    fn a_record_key_comes_back(value in strategies::record_key()) { comes_back(&value); }

    #[test]
    fn a_view_item_comes_back(value in strategies::view_item()) { comes_back(&value); }

    #[test]
    fn a_view_key_comes_back(value in strategies::view_key()) { comes_back(&value); }

    #[test]
    fn garbage_is_refused_or_is_a_value(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        garbage(&bytes);
    }

    #[test]
    fn a_damaged_message_is_refused_or_is_a_value(
        command in strategies::command(),
        record in strategies::record(),
        item in strategies::view_item(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        for mut bytes in [command.encode(), record.encode(), item.encode()] {
            let at = at.index(bytes.len());
            bytes[at] = byte;
            garbage(&bytes);
            garbage(&bytes[..at]);
        }
    }
}

/// Nothing panics, and whatever is taken is taken whole.
fn garbage(bytes: &[u8]) {
    fn stable<T: Wire + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
        if let Ok(value) = T::decode(bytes) {
            comes_back(&value);
        }
    }
    stable::<Command>(bytes);
    stable::<CatalogChange>(bytes);
    stable::<Reply>(bytes);
    stable::<Record>(bytes);
    stable::<RecordKey>(bytes);
    stable::<ViewItem>(bytes);
    stable::<ViewKey>(bytes);
}

fn service() -> Option<types::v1::ServiceKey> {
    Some(types::v1::ServiceKey { namespace: "shop".into(), name: "cart".into() })
}

fn endpoint() -> types::v1::Endpoint {
    types::v1::Endpoint {
        id: "e-abcdefghij234".into(),
        address: vec![127, 0, 0, 1],
        locality: Some(types::v1::Locality::default()),
        ..Default::default()
    }
}

fn command(changes: Vec<types::v1::CatalogChange>) -> store::v1::Command {
    let catalog = store::v1::Catalog { cluster: 1, session: vec![1; 16], sequence: 1, changes };
    store::v1::Command {
        min_version: 1,
        at_ms: 0,
        principal: None,
        action: Some(store::v1::command::Action::Catalog(catalog)),
    }
}

fn put(endpoints: Vec<types::v1::Endpoint>) -> types::v1::CatalogChange {
    let put = types::v1::PutEndpoints { service: service(), endpoints };
    types::v1::CatalogChange { kind: Some(types::v1::catalog_change::Kind::PutEndpoints(put)) }
}

fn refused<T: Wire + std::fmt::Debug>(message: T::Message) -> (String, String) {
    let refusal = T::from_wire(message).unwrap_err();
    (refusal.field, refusal.rule)
}

#[test]
fn a_refusal_names_the_whole_path() {
    let bad = types::v1::Endpoint { address: vec![1, 2, 3], ..endpoint() };
    let message = command(vec![put(vec![endpoint()]), put(vec![endpoint(), bad])]);
    let refusal = Command::from_wire(message).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "catalog.changes[1].put_endpoints.endpoints[1].address: must be 4 or 16 bytes, not 3"
    );
}

#[test]
fn sizes_and_numbers_are_checked() {
    let (field, rule) = refused::<CatalogChange>(put(vec![endpoint(); MAX_ENDPOINTS + 1]));
    assert_eq!((field.as_str(), rule.as_str()), ("put_endpoints.endpoints", "holds 101, more than 100"));

    let zero = types::v1::Endpoint { inbound_port: Some(0), ..endpoint() };
    let (field, rule) = refused::<CatalogChange>(put(vec![zero]));
    assert_eq!(
        (field.as_str(), rule.as_str()),
        ("put_endpoints.endpoints[0].inbound_port", "must be 1 to 65535, not 0")
    );

    let target = |port| types::v1::PortTarget { name: "http".into(), port };
    let twice = types::v1::Endpoint { ports: vec![target(1), target(2)], ..endpoint() };
    let (field, rule) = refused::<CatalogChange>(put(vec![twice]));
    assert_eq!(
        (field.as_str(), rule.as_str()),
        ("put_endpoints.endpoints[0].ports[1]", "names one thing twice")
    );

    let large = types::v1::Endpoint { ports: vec![target(65_536)], ..endpoint() };
    let (field, _) = refused::<CatalogChange>(put(vec![large]));
    assert_eq!(field, "put_endpoints.endpoints[0].ports[0].port");

    let roots = types::v1::Bundle { trust_domain: "a".into(), roots: vec![vec![1]; 9], ..Default::default() };
    assert_eq!(refused::<sealane_core::trust::Bundle>(roots).1, "holds 9, more than 8");
}

#[test]
fn what_a_newer_version_wrote_says_that_this_one_is_too_old() {
    let newer = store::v1::Command { min_version: 3, ..command(vec![]) };
    let (field, rule) = refused::<Command>(newer);
    assert_eq!(field, "min_version");
    assert_eq!(
        rule,
        "needs version 3, and this process understands up to 2: it is too old and must be upgraded"
    );

    // A variant of a newer version is a field that prost drops: an empty oneof.
    let (field, rule) = refused::<Command>(command(vec![types::v1::CatalogChange { kind: None }]));
    assert_eq!(field, "catalog.changes[0].kind");
    assert!(rule.contains("too old"), "{rule}");

    let lane = types::v1::LaneReport { cluster: "west".into(), verdict: 7, rtt_us: None };
    let lanes = types::v1::catalog_change::Kind::PutLanes(types::v1::Lanes { lanes: vec![lane] });
    let (field, rule) = refused::<CatalogChange>(types::v1::CatalogChange { kind: Some(lanes) });
    assert_eq!(field, "put_lanes.lanes[0].verdict");
    assert!(rule.contains("is 7") && rule.contains("too old"), "{rule}");

    assert_eq!(refused::<Record>(store::v1::Record::default()).0, "min_version");
    assert_eq!(refused::<Record>(store::v1::Record { min_version: 1, kind: None }).0, "kind");
}

proptest! {
    #[test]
    fn what_says_nothing_new_is_read_by_older_builds(value in strategies::record()) {
        let new = match &value {
            Record::Admission(_) => true,
            Record::Cluster(cluster) => cluster.uid.is_some(),
            _ => false,
        };
        prop_assert_eq!(value.to_wire().min_version, if new { 2 } else { 1 });
    }
}
