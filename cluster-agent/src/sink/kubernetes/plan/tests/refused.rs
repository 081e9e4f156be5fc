//! What the API server refuses, as the conductor and the plan deal with it.

use super::super::super::conductor::Conductor;
use super::super::super::watch::WatchEvent;
use super::super::super::writer::{Done, Outcome};
use super::*;
use crate::config::Given;
use std::time::Duration;
use tokio::time::Instant;

/// What the API server has of an object is seen.
pub(super) fn show(conductor: &mut Conductor, api: &Api, key: &ObjectKey) {
    let observed = api.observed();
    let found = observed.get(key).map(|seen| (key.clone(), name("shop/web"), seen.clone()));
    conductor.observe(match found {
        Some(found) => WatchEvent::Put(Box::new(found)),
        None => WatchEvent::Gone(key.clone()),
    });
}

/// Takes one round of steps; what is refused by kind and verb is answered as the API server would.
pub(super) fn round(
    conductor: &mut Conductor,
    api: &mut Api,
    refuses: &str,
    now: Instant,
) -> Option<Vec<String>> {
    let (service, effects) = conductor.next(&setting(), now)?;
    let (mut outcomes, mut steps, mut unwritten) = (Vec::new(), Vec::new(), BTreeSet::new());
    for effect in effects {
        let (target, content) = (effect.target(), effect.content());
        if effect.waits_for(&unwritten) {
            continue;
        }
        steps.push(short(&effect));
        if let (true, Some(target)) = (short(&effect) == refuses, target.clone()) {
            unwritten.insert(target.clone());
            outcomes.push(Outcome::Refused {
                target,
                error: "exceeded quota".to_owned(),
                reason: "Forbidden",
                wait: Duration::ZERO,
            });
            continue;
        }
        api.take(effect).unwrap();
        if let Some((key, _)) = &target {
            let observed = api.observed();
            outcomes.push(match observed.get(key) {
                Some(seen) => Outcome::Seen(Box::new((key.clone(), service.clone(), seen.clone()))),
                None => Outcome::Gone(key.clone()),
            });
        }
        outcomes.extend(target.map(|target| Outcome::Took(target, content)));
    }
    conductor.done(Done { service, outcomes }, now);
    Some(steps)
}

pub(super) fn rounds(conductor: &mut Conductor, api: &mut Api, refuses: &str, now: Instant) -> Vec<String> {
    let mut steps = Vec::new();
    while let Some(more) = round(conductor, api, refuses, now) {
        steps.extend(more);
        assert!(steps.len() < 40, "it does not settle: {steps:#?}");
    }
    steps
}

pub(super) fn begin(api: &Api, sources: Sources, now: Instant) -> Conductor {
    let mut conductor = Conductor::new(now, Arc::default());
    for kind in [Kind::Import, Kind::Export, Kind::Service, Kind::Slice] {
        let observed = api.observed();
        let of_kind = observed.objects().filter(|(key, _)| key.kind == kind);
        let found = of_kind.map(|(key, seen)| (key.clone(), name("shop/web"), seen.clone())).collect();
        conductor.observe(WatchEvent::Listed(kind, found));
    }
    conductor.follow(sources);
    conductor
}

fn web() -> ServiceKey {
    name("shop/web")
}

fn ready(api: &Api) -> (String, String, String) {
    let ready = &api.objects[&key(Kind::Import, "web")]["status"]["conditions"][0];
    let text = |field: &str| ready[field].as_str().unwrap().to_owned();
    (text("status"), text("reason"), text("message"))
}

#[test]
fn an_import_whose_service_is_refused_says_so_and_the_own_export_is_judged() {
    let (mut api, now) = (Api::default(), Instant::now());
    let export = json!({ "metadata": {}, "spec": {} });
    api.others(&key(Kind::Export, "web"), export);
    let mut conductor = begin(&api, here_too(true, |_| {}), now);
    let steps = rounds(&mut conductor, &mut api, "make Service", now);
    assert!(steps.contains(&"apply ServiceExport status".to_owned()), "{steps:?}");
    let why =
        format!("the API server refuses Service shop/{}: exceeded quota", derived::name(&name("shop/web")));
    assert_eq!(ready(&api), ("False".to_owned(), "Failed".to_owned(), why));
    let tries = |steps: &[String]| steps.iter().filter(|s| *s == "make Service").count();
    assert_eq!(tries(&steps), 1, "{steps:?}");
    assert_eq!(conductor.told().2.map(|error| error.ends_with(": exceeded quota")), Some(true));

    let later = now + Duration::from_secs(60);
    assert!(conductor.wakes(now).is_some_and(|at| at < later));
    conductor.forgive(later);
    let steps = rounds(&mut conductor, &mut api, "nothing", later);
    assert_eq!(tries(&steps), 1, "{steps:?}");
    assert_eq!((ready(&api).0, conductor.told().2), ("True".to_owned(), None));
}

#[test]
fn what_was_not_told_is_told_once_what_it_says_is_written() {
    let (mut api, now) = (Api::default(), Instant::now());
    api.others(&key(Kind::Export, "web"), json!({ "metadata": {}, "spec": {} }));
    let mut conductor = begin(&api, here_too(true, |_| {}), now);
    rounds(&mut conductor, &mut api, "apply ServiceExport status", now);
    assert_eq!(api.told, []);
    let later = now + Duration::from_secs(60);
    conductor.forgive(later);
    rounds(&mut conductor, &mut api, "nothing", later);
    let told = ("ServiceExport shop/web".to_owned(), "Exported: other clusters that import it: 1".to_owned());
    assert_eq!(api.told, [told]);
}

#[test]
fn a_refused_slice_keeps_no_dead_endpoint_alive_and_takes_no_living_one_away() {
    let (mut api, now) = (Api::default(), Instant::now());
    settle(&mut api, &here_too(true, |_| {}), &setting(), &mut Learnt::default());
    assert_eq!(served(&api), ["east 10.1.0.1 http=8080 chosen", "west 10.2.0.1 http=8080 known"]);
    let mut conductor = begin(&api, here_too(false, |_| {}), now);
    rounds(&mut conductor, &mut api, "make EndpointSlice", now);
    assert_eq!(served(&api), ["west 10.2.0.1 http=8080 known"]);
    assert_eq!(ready(&api).1, "Failed");
    let later = now + Duration::from_secs(60);
    conductor.forgive(later);
    rounds(&mut conductor, &mut api, "nothing", later);
    assert_eq!(served(&api), ["west 10.2.0.1 http=8080 chosen"]);
    assert_eq!(ready(&api).1, "Ready");
}

#[test]
fn of_an_import_without_a_family_of_this_cluster_it_is_known_that_no_address_comes() {
    let now = Instant::now();
    let mut api = Api::default();
    let assigned = |conductor: &Conductor| {
        conductor.assigned().and_then(|all| all.get(&web()).map(|given| Given::clone(given)))
    };
    let unsupported = || sources(|web| web.ip_families = vec![V6]);
    let mut conductor = begin(&api, unsupported(), now);
    assert_eq!(assigned(&conductor), None, "nothing is known");
    rounds(&mut conductor, &mut api, "", now);
    assert_eq!(assigned(&conductor), Some(Given { addresses: vec![], settled: true }));
    conductor.follow(sources(|web| web.ip_families = vec![V6, V4]));
    rounds(&mut conductor, &mut api, "", now);
    assert_eq!(assigned(&conductor), Some(Given::so_far(vec!["10.96.0.1".parse().unwrap()])));
}

#[test]
fn what_stands_in_the_way_of_an_import_is_a_trouble_in_every_replica() {
    let (mut api, now) = (Api::default(), Instant::now());
    let import = key(Kind::Import, "web");
    api.others(&import, json!({ "spec": { "type": "Headless", "ports": [] } }));
    let told = |conductor: &Conductor| conductor.troubles().get(&web()).cloned();
    let mut conductor = begin(&api, sources(|_| {}), now);
    let why = "ServiceImport shop/web was made by kubectl; it is not taken over: remove or rename it";
    assert_eq!(told(&conductor).as_deref(), Some(why), "though nothing was planned, let alone written");
    rounds(&mut conductor, &mut api, "", now);
    assert_eq!(api.told, [("ServiceImport shop/web".to_owned(), format!("ForeignObject: {why}"))]);
    conductor.follow(sources_of(vec![], &[]));
    assert_eq!(told(&conductor), None, "where it is not imported it is in nobody's way");
    conductor.follow(sources(|_| {}));
    assert_eq!(told(&conductor).as_deref(), Some(why));
    conductor.observe(WatchEvent::Gone(import));
    assert_eq!(told(&conductor), None);
}

#[test]
fn an_export_that_the_federation_refuses_is_a_trouble_in_every_replica() {
    let (mut api, now) = (Api::default(), Instant::now());
    api.others(&key(Kind::Export, "web"), json!({ "spec": {} }));
    let message = "the export grant \"a-*\" does not cover it".to_owned();
    let mut refused = here_too(true, |_| {});
    let refusal = Refusal { code: RefusalCode::Forbidden, message };
    refused.refused = Arc::new(BTreeMap::from([(name("shop/web"), refusal)]));
    let mut conductor = begin(&api, refused.clone(), now);
    rounds(&mut conductor, &mut api, "", now);
    let why = "the federation refuses the export: the export grant \"a-*\" does not cover it";
    let troubles = BTreeMap::from([(name("shop/web"), why.to_owned())]);
    assert_eq!(**conductor.troubles(), troubles);
    assert_eq!(**begin(&api, sources_of(vec![], &[]), now).troubles(), troubles, "another replica reads it");
    conductor.follow(here_too(true, |_| {}));
    rounds(&mut conductor, &mut api, "", now);
    assert_eq!(**conductor.troubles(), BTreeMap::new());
}
