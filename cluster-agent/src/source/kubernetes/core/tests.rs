use super::*;
use crate::index::{FieldError, NamespacePart, PartKey};
use sealane_core::name::Namespace;

fn name(name: &str) -> ObjectName {
    ObjectName { namespace: "".into(), name: name.into() }
}

fn part(name: &str) -> Part {
    Part::Namespace(Namespace::parse(name).unwrap(), NamespacePart::default())
}

fn object(named: &str, version: &str) -> Told {
    Told::Object(Box::new(Seen::new(Kind::Namespace, name(named), version, Ok(Some(part(named))))))
}

fn put(named: &str) -> Change {
    Change::Put(part(named))
}

fn removed(named: &str) -> Change {
    Change::Remove(PartKey::Namespace(Namespace::parse(named).unwrap()))
}

fn on(core: &mut Core, told: impl IntoIterator<Item = Told>) -> Vec<SourceEvent> {
    told.into_iter().for_each(|told| core.on(Kind::Namespace, told));
    core.take()
}

/// A core that knows the namespaces a and b, and whose other kinds are empty.
fn known() -> Core {
    let mut core = Core::default();
    for kind in Kind::ALL {
        core.on(kind, Told::Begun);
        if kind == Kind::Namespace {
            core.on(kind, object("a", "1"));
            core.on(kind, object("b", "2"));
        }
        core.on(kind, Told::Listed);
    }
    assert_eq!(core.take(), [SourceEvent::Changed(vec![put("a"), put("b")]), SourceEvent::Ready]);
    core
}

#[test]
fn the_cluster_is_known_when_every_kind_was_listed_once() {
    let mut core = Core::default();
    for kind in Kind::ALL {
        assert_eq!(core.take(), []);
        core.on(kind, Told::Begun);
        core.on(kind, Told::Listed);
    }
    assert_eq!(core.take(), [SourceEvent::Ready]);
    core.on(Kind::Pod, Told::Begun);
    core.on(Kind::Pod, Told::Listed);
    assert_eq!(core.take(), []);
}

#[test]
fn a_new_list_sends_what_differs_and_takes_away_what_it_lacks() {
    let mut core = known();
    assert_eq!(on(&mut core, [Told::Begun, object("a", "1"), object("b", "2"), Told::Listed]), []);
    let listed = on(&mut core, [Told::Begun, object("a", "3"), object("c", "4"), Told::Listed]);
    assert_eq!(listed, [SourceEvent::Changed(vec![put("a"), put("c"), removed("b")])]);
}

#[test]
fn a_list_that_fails_half_way_takes_nothing_away() {
    let mut core = known();
    let failed = on(&mut core, [Told::Begun, object("a", "3"), Told::Failed("cut".to_owned())]);
    let unavailable = SourceEvent::Unavailable([("namespaces", "cut".to_owned())].into());
    assert_eq!(failed, [SourceEvent::Changed(vec![put("a")]), unavailable]);
    // The next one begins anew: what the failed one had does not count for it.
    assert_eq!(on(&mut core, [Told::Begun]), []);
    let listed = on(&mut core, [object("b", "2"), Told::Listed]);
    assert_eq!(listed, [SourceEvent::Changed(vec![removed("a")]), SourceEvent::Unavailable(Failures::new())]);
}

#[test]
fn changes_of_the_watch_are_passed_on_once() {
    let mut core = known();
    assert_eq!(on(&mut core, [object("a", "1")]), []);
    assert_eq!(on(&mut core, [object("a", "5")]), [SourceEvent::Changed(vec![put("a")])]);
    assert_eq!(on(&mut core, [Told::Gone(name("a"))]), [SourceEvent::Changed(vec![removed("a")])]);
    assert_eq!(on(&mut core, [Told::Gone(name("a"))]), []);
}

#[test]
fn an_object_that_is_refused_stays_as_it_was_and_is_named() {
    let mut core = known();
    let refusal = FieldError { field: "metadata.x".to_owned(), reason: "is bad".to_owned() };
    let refused = Told::Object(Box::new(Seen::new(Kind::Namespace, name("a"), "9", Err(refusal))));
    let problem = Problem {
        file: "namespaces".to_owned(),
        document: 0,
        object: Some("a".to_owned()),
        field: "metadata.x".to_owned(),
        reason: "is bad".to_owned(),
    };
    assert_eq!(on(&mut core, [refused]), [SourceEvent::Problems(vec![problem])]);
    let gone = on(&mut core, [Told::Gone(name("a"))]);
    assert_eq!(gone, [SourceEvent::Changed(vec![removed("a")]), SourceEvent::Problems(vec![])]);
}

#[test]
fn an_object_that_becomes_no_business_of_ours_is_taken_away() {
    let mut core = known();
    let other = || Told::Object(Box::new(Seen::new(Kind::Namespace, name("a"), "9", Ok(None))));
    assert_eq!(on(&mut core, [other()]), [SourceEvent::Changed(vec![removed("a")])]);
    assert_eq!(on(&mut core, [Told::Gone(name("a"))]), []);
}

#[test]
fn failures_are_named_by_resource_until_they_heal() {
    let mut core = known();
    core.on(Kind::Pod, Told::Failed("watch is forbidden".to_owned()));
    core.on(Kind::Export, Told::Failed("gone".to_owned()));
    let both = [
        ("serviceexports.multicluster.x-k8s.io", "gone".to_owned()),
        ("pods", "watch is forbidden".to_owned()),
    ];
    assert_eq!(core.take(), [SourceEvent::Unavailable(both.into())]);
    core.on(Kind::Pod, Told::Failed("watch is forbidden".to_owned()));
    assert_eq!(core.take(), [], "told once");
    core.on(Kind::Pod, Told::Alive);
    core.on(Kind::Export, Told::Alive);
    assert_eq!(core.take(), [SourceEvent::Unavailable(Failures::new())]);
}
