//! Somebody who keeps changing what is ours.

use super::super::super::conductor::Conductor;
use super::refused::{begin, rounds, show};
use super::*;
use std::time::Duration;
use tokio::time::Instant;

/// An import that stands as it should.
fn standing(change: impl FnOnce(&mut Import)) -> (Api, Conductor, Instant) {
    let (mut api, now) = (Api::default(), Instant::now());
    let mut conductor = begin(&api, sources(change), now);
    rounds(&mut conductor, &mut api, "nothing", now);
    (api, conductor, now)
}

/// For so many seconds somebody undoes, again and again, what we write. Gives our steps.
fn fight(
    (api, conductor, start): &mut (Api, Conductor, Instant),
    seconds: u64,
    undo: impl Fn(&mut Api),
) -> Vec<String> {
    let import = key(Kind::Import, "web");
    let mut steps = Vec::new();
    for second in 0..seconds {
        let now = *start + Duration::from_secs(second);
        conductor.forgive(now);
        for _ in 0..5 {
            undo(api);
            show(conductor, api, &import);
            steps.extend(rounds(conductor, api, "nothing", now));
        }
    }
    steps
}

fn count(steps: &[String], step: &str) -> usize {
    steps.iter().filter(|s| *s == step).count()
}

#[test]
fn who_keeps_changing_an_import_is_answered_ever_more_seldom_and_named() {
    let import = key(Kind::Import, "web");
    let mut world = standing(|_| {});
    let local = |object: &mut Value| object["spec"]["internalTrafficPolicy"] = json!("Local");
    let steps = fight(&mut world, 60, |api| api.change(&import, "gitops", local));
    // At 0, 1, 3, 7, 15 and 31 seconds; its status follows at a rate of its own.
    assert_eq!(count(&steps, "apply ServiceImport"), 6, "{steps:?}");
    let of_status = count(&steps, "apply ServiceImport status");
    assert!((1..=7).contains(&of_status), "{of_status}");
    let (mut api, mut conductor, start) = world;
    let told: BTreeSet<&(String, String)> = api.told.iter().collect();
    let message = "Contended: gitops keeps changing or removing ServiceImport shop/web: it is put right ever more seldom, at \
                   least every minute";
    assert_eq!(told, [&("ServiceImport shop/web".to_owned(), message.to_owned())].into());

    // What should be something else now does not wait.
    let now = start + Duration::from_secs(60);
    conductor.follow(sources(|web| web.labels = BTreeMap::from([("team".to_owned(), "b".to_owned())])));
    let steps = rounds(&mut conductor, &mut api, "nothing", now);
    assert_eq!(count(&steps, "apply ServiceImport"), 1, "{steps:?}");
    assert_eq!(api.objects[&import]["metadata"]["labels"]["team"], json!("b"));
    assert_eq!(api.objects[&import]["spec"]["internalTrafficPolicy"], json!("Cluster"));
}

#[test]
fn a_status_says_what_is_new_while_the_rest_of_the_import_is_fought_over() {
    let import = key(Kind::Import, "web");
    let mut world = standing(|_| {});
    let local = |object: &mut Value| object["spec"]["internalTrafficPolicy"] = json!("Local");
    fight(&mut world, 10, |api| api.change(&import, "gitops", local));
    let (mut api, mut conductor, start) = world;
    // The import itself stays what it should be: only who exports it is another.
    conductor.follow(sources(|web| web.clusters = [name("north")].into()));
    rounds(&mut conductor, &mut api, "nothing", start + Duration::from_secs(10));
    let object = &api.objects[&import];
    assert_eq!(object["spec"]["internalTrafficPolicy"], json!("Local"), "it waits");
    assert_eq!(object["status"]["clusters"], json!([{ "cluster": "north" }]));
}

#[test]
fn a_status_that_somebody_keeps_turning_is_a_fight_though_its_time_is_another_each_time() {
    let (mut api, now) = (Api::default(), Instant::now());
    let export = key(Kind::Export, "web");
    api.others(&export, json!({ "spec": {} }));
    let mut conductor = begin(&api, here_too(true, |_| {}), now);
    rounds(&mut conductor, &mut api, "nothing", now);
    let mut writes = 0;
    for second in 0..60 {
        let at = now + Duration::from_secs(second);
        conductor.forgive(at);
        api.change(&export, "kubectl-edit", |object| {
            let ready = &mut object["status"]["conditions"][1];
            ready["message"] = json!("not yours");
            ready["lastTransitionTime"] = json!(format!("2026-01-02T03:05:{second:02}Z"));
        });
        show(&mut conductor, &api, &export);
        writes += count(&rounds(&mut conductor, &mut api, "nothing", at), "apply ServiceExport status");
    }
    assert_eq!(writes, 6);
}

#[test]
fn an_import_that_is_removed_again_and_again_comes_back_ever_more_seldom() {
    let import = key(Kind::Import, "web");
    let mut world = standing(|_| {});
    let steps = fight(&mut world, 60, |api| drop(api.objects.remove(&import)));
    assert_eq!(count(&steps, "make ServiceImport"), 6, "{steps:?}");
}
