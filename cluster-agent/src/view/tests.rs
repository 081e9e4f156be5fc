use super::*;
use sealane_core::name::ServiceKey;
use std::collections::BTreeSet;

const FEDERATION: FederationId = FederationId([7; 16]);

fn export(name: &str, importer: &str) -> ViewItem {
    let importers = BTreeSet::from([ClusterName::parse(importer).unwrap()]);
    let service = ServiceKey::parse(name).unwrap();
    ViewItem::Export(Arc::new(ExportStatus { service, ready: Ok(()), conflicts: vec![], importers }))
}

fn at(index: u64) -> Revision {
    Revision { generation: 1, index }
}

fn held(index: u64, items: Vec<ViewItem>) -> Arc<Held> {
    let items = items.into_iter().map(|i| (key_of(&i), i)).collect();
    Arc::new(Held { origin: Origin::Store, revision: at(index), scope: vec![9], items })
}

fn receiver(held: Arc<Held>) -> Receiver {
    Receiver::new(FEDERATION, ClusterName::parse("east").unwrap(), held)
}

fn subscribed(federation: FederationId, cluster: &str) -> Kind {
    let hello = Some(hello::hello(Some(federation)));
    Kind::Subscribed(wire::Subscribed { hello, cluster: cluster.to_owned(), scope: vec![9] })
}

fn delta(index: u64, upserts: &[ViewItem], deletes: &[ViewItem], more: bool) -> Kind {
    Kind::Delta(wire::ViewDelta {
        revision: Some(at(index).to_wire()),
        upserts: field::to_list(upserts),
        deletes: deletes.iter().map(|i| key_of(i).to_wire()).collect(),
        more,
    })
}

fn synced(index: u64, full: bool) -> Kind {
    Kind::Synced(wire::Synced { revision: Some(at(index).to_wire()), full })
}

#[test]
fn deltas_are_applied_whole() {
    let (a, b) = (export("n/a", "west"), export("n/b", "west"));
    let mut stream = receiver(held(5, vec![a.clone()]));
    assert_eq!(stream.subscribe().resume.unwrap().scope, [9]);
    assert_eq!(stream.on(subscribed(FEDERATION, "east")), Ok(Step::Wait));
    assert_eq!(stream.on(delta(6, std::slice::from_ref(&b), &[], true)), Ok(Step::Wait));
    assert_eq!(
        stream.on(delta(6, &[], std::slice::from_ref(&a), false)),
        Ok(Step::Publish(held(6, vec![b])))
    );
}

#[test]
fn a_resync_takes_effect_at_its_end() {
    let (old, kept, new) = (export("n/a", "west"), export("n/b", "west"), export("n/c", "west"));
    let mut stream = receiver(held(5, vec![old.clone(), kept.clone()]));
    stream.on(subscribed(FEDERATION, "east")).unwrap();
    let refused = Kind::ResumeRefused(wire::ResumeRefused { reason: "compacted".to_owned() });
    assert_eq!(stream.on(refused), Ok(Step::Resubscribe("compacted".to_owned())));
    let again = stream.resubscribe();
    assert_eq!((again.resume.is_none(), again.held.len()), (true, 2));
    stream.on(subscribed(FEDERATION, "east")).unwrap();
    let part = delta(9, std::slice::from_ref(&new), std::slice::from_ref(&old), false);
    assert_eq!(stream.on(part), Ok(Step::Wait), "nothing is deleted before the end");
    assert_eq!(stream.on(synced(9, true)), Ok(Step::Publish(held(9, vec![kept, new]))));
}

#[test]
fn strangers_and_the_past_are_refused() {
    let start = || receiver(held(5, vec![export("n/a", "west")]));
    let other = start().on(subscribed(FederationId([8; 16]), "east")).unwrap_err();
    assert!(matches!(other, ViewError::WrongFederation { .. }), "{other}");
    let cluster = start().on(subscribed(FEDERATION, "west")).unwrap_err();
    assert_eq!(cluster, ViewError::WrongCluster("west".to_owned()));
    let mut stream = start();
    assert!(matches!(stream.on(synced(5, false)), Err(ViewError::Protocol(_))), "nobody said who it is");
    stream.on(subscribed(FEDERATION, "east")).unwrap();
    let backwards = ViewError::Backwards { found: at(4), held: at(5) };
    assert_eq!(stream.on(delta(4, &[], &[], false)), Err(backwards.clone()));
    assert_eq!(stream.on(synced(4, true)), Err(backwards));
    let restored = Revision { generation: 2, index: 1 };
    let synced = Kind::Synced(wire::Synced { revision: Some(restored.to_wire()), full: true });
    assert!(matches!(stream.on(synced), Ok(Step::Publish(_))), "a restore raised the generation");
}

#[test]
fn the_view_survives_the_disk_or_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("view");
    assert!(load(&path, FEDERATION).unwrap().is_none());
    let view = held(5, vec![export("n/a", "west")]);
    save(&path, FEDERATION, &view).unwrap();
    let found = load(&path, FEDERATION).unwrap().unwrap();
    assert_eq!(found, Held { origin: Origin::Disk, ..Held::clone(&view) });
    assert!(matches!(load(&path, FederationId([1; 16])), Err(ViewFileError::Foreign(_))));
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    assert!(matches!(load(&path, FEDERATION), Err(ViewFileError::Damaged { .. })));
    std::fs::write(&path, "").unwrap();
    assert!(matches!(load(&path, FEDERATION), Err(ViewFileError::Damaged { .. })));
}
