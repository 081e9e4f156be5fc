use super::*;
use crate::config::tests::{catalog, name, own, shard};
use sealane_core::command::RefusalCode;
use sealane_core::name::EndpointId;
use sealane_core::state::LaneVerdict;
use sealane_core::time::Revision;
use std::collections::BTreeSet;
use std::sync::Arc;

fn upward(shards: &[(&str, crate::catalog::Shard)]) -> Upward {
    Upward { own: Arc::new(own()), catalog: catalog(shards), lanes: Arc::default() }
}

/// The changes of a write in short.
fn said(write: Option<wire::Write>) -> Vec<String> {
    let changes = write.into_iter().flat_map(|w| w.changes);
    let short = |c: wire_types::CatalogChange| match CatalogChange::from_wire(c).unwrap() {
        CatalogChange::PutExport { service, .. } => format!("export {service}"),
        CatalogChange::RemoveExport { service } => format!("remove {service}"),
        CatalogChange::PutEndpoints { service, endpoints } => format!("put {service} {}", endpoints.len()),
        CatalogChange::RemoveEndpoints { service, ids } => format!("drop {service} {}", ids.len()),
        CatalogChange::RetainEndpoints { service, ids } => format!("retain {service} {}", ids.len()),
        CatalogChange::Synced { services } => format!("synced {}", services.len()),
        CatalogChange::PutLanes { lanes } => format!("lanes {}", lanes.len()),
        CatalogChange::RemoveLanes { targets } => format!("no lanes {}", targets.len()),
        CatalogChange::PutInterest { .. } => "interest".to_owned(),
        CatalogChange::PutBundle { .. } => "bundle".to_owned(),
        CatalogChange::PutProfile { .. } => "profile".to_owned(),
        CatalogChange::PutGateways { .. } => "gateways".to_owned(),
    };
    changes.map(short).collect()
}

use sealane_proto::types::v1 as wire_types;

fn written(sequence: u64, refused: Vec<(u32, Refusal)>) -> wire::Written {
    let revision = Some(Revision { generation: 1, index: sequence }.to_wire());
    wire::Written { sequence, revision, result: Some(CatalogResult { refused }.to_wire()) }
}

#[test]
fn a_session_answers_the_store_and_then_says_what_changes() {
    let start = upward(&[("shop/a", shard(&["a-0"])), ("shop/b", shard(&["b-0"]))]);
    let want = wire::Want {
        shards: vec![name::<ServiceKey>("shop/b").to_wire()],
        bundle: true,
        interest: true,
        ..wire::Want::default()
    };
    let mut session = Session::begin(start.clone(), want).unwrap();
    let first = session.next(&start);
    let all = ["bundle", "interest", "export shop/b", "put shop/b 1", "retain shop/b 1", "synced 2"];
    assert_eq!(said(first), all);

    // Meanwhile much happens; it is one write, once the first is answered.
    let mut later = upward(&[("shop/a", shard(&["a-0", "a-1"])), ("shop/c", shard(&[]))]);
    later.lanes = Arc::new([(name("west"), (LaneVerdict::Down, None))].into());
    assert_eq!(session.next(&later), None);
    let done = session.on_written(written(1, vec![])).unwrap();
    assert_eq!((done.synced, done.services), (true, [(name("shop/b"), None)].into()));
    let second = session.next(&later).unwrap();
    assert_eq!(second.sequence, 2);
    assert_eq!(said(Some(second)), ["put shop/a 1", "export shop/c", "remove shop/b", "lanes 1"]);
    session.on_written(written(2, vec![])).unwrap();
    assert_eq!(session.next(&later), None, "nothing changed");
    later.lanes = Arc::default();
    assert_eq!(said(session.next(&later)), ["no lanes 1"], "what nobody says any more is taken back");
    assert!(session.on_written(written(9, vec![])).is_err());
}

#[test]
fn a_refusal_is_its_services_and_the_first_one_counts() {
    let refusal = |message: &str| Refusal { code: RefusalCode::Forbidden, message: message.to_owned() };
    let start = upward(&[("shop/a", shard(&["a-0"]))]);
    let want = wire::Want {
        shards: vec![name::<ServiceKey>("shop/a").to_wire()],
        gateways: true,
        ..wire::Want::default()
    };
    let mut session = Session::begin(start.clone(), want).unwrap();
    assert_eq!(
        said(session.next(&start)),
        ["gateways", "export shop/a", "put shop/a 1", "retain shop/a 1", "synced 1"]
    );
    let refused = vec![(0, refusal("too many")), (1, refusal("not granted")), (2, refusal("no such export"))];
    let done = session.on_written(written(1, refused)).unwrap();
    assert_eq!(done.services, [(name("shop/a"), Some(refusal("not granted")))].into());
    assert_eq!(done.others, [refusal("too many")]);
}

#[test]
fn large_shards_go_in_chunks_and_writes_are_bounded() {
    let names: Vec<String> = (0..250).map(|n| format!("p-{n}")).collect();
    let pods: Vec<&str> = names.iter().map(String::as_str).collect();
    let start = upward(&[]);
    let mut session = Session::begin(start.clone(), wire::Want::default()).unwrap();
    assert_eq!(said(session.next(&start)), ["synced 0"]);
    session.on_written(written(1, vec![])).unwrap();
    let services: Vec<String> = (0..600).map(|n| format!("shop/s-{n}")).collect();
    let mut shards: Vec<(&str, crate::catalog::Shard)> =
        services.iter().map(|s| (s.as_str(), shard(&[]))).collect();
    shards[0].1 = shard(&pods);
    shards.iter_mut().skip(1).for_each(|(_, s)| {
        s.export.spec.as_mut().unwrap().annotations.insert("x".to_owned(), "y".repeat(4_000));
    });
    let desired = upward(&shards);
    let (mut sequence, mut exports, mut put) = (1, 0, BTreeSet::<EndpointId>::new());
    while let Some(write) = session.next(&desired) {
        sequence += 1;
        assert_eq!(write.sequence, sequence);
        assert!(write.changes.iter().map(Message::encoded_len).sum::<usize>() <= WRITE_BYTES);
        for change in write.changes {
            match CatalogChange::from_wire(change).unwrap() {
                CatalogChange::PutExport { .. } => exports += 1,
                CatalogChange::PutEndpoints { endpoints, .. } => {
                    assert!(endpoints.len() <= 100);
                    put.extend(endpoints.into_iter().map(|e| e.id));
                }
                other => panic!("{other:?}"),
            }
        }
        session.on_written(written(sequence, vec![])).unwrap();
    }
    assert_eq!((exports, put.len()), (600, 250));
    assert!(sequence > 4, "{sequence} writes");
}

#[test]
fn what_the_store_has_as_a_whole_is_told_once_and_a_change_that_is_none_to_it_at_once() {
    let start = upward(&[("shop/a", shard(&["a-0"]))]);
    let mut session = Session::begin(start.clone(), wire::Want::default()).unwrap();
    assert_eq!((said(session.next(&start)), session.settle()), (vec!["synced 1".to_owned()], None));
    session.on_written(written(1, vec![])).unwrap();
    let at = |index| Revision { generation: 1, index };
    assert_eq!(session.settle(), Some((start.catalog.clone(), at(1))));
    assert_eq!((session.next(&start), session.settle()), (None, None));

    let renamed = crate::catalog::Shard { generation: Some(9), ..shard(&["a-0"]) };
    let edited = upward(&[("shop/a", renamed)]);
    assert_eq!(said(session.next(&edited)), Vec::<String>::new());
    assert_eq!(session.settle(), Some((edited.catalog.clone(), at(1))));

    let more = upward(&[("shop/a", shard(&["a-0", "a-1"]))]);
    assert!(session.next(&more).is_some() && session.settle().is_none());
    session.on_written(written(2, vec![])).unwrap();
    assert_eq!(session.settle(), Some((more.catalog.clone(), at(2))));
}
