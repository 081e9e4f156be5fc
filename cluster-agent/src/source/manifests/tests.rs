use super::*;
use crate::index::{Change, Part, PartKey};
use crate::source::Problem;
use sealane_core::name::ServiceKey;
use std::fs;
use std::path::Path;

const SERVICE: &str = "\
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  clusterIP: 10.0.0.1
  ports:
  - name: http
    port: 80
    targetPort: 8080
";
const EXPORT: &str = "\
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceExport
metadata:
  name: web
  namespace: shop
  creationTimestamp: 2026-01-02T03:04:05Z
spec:
  exportedLabels: {team: a}
";
const POD: &str = "\
apiVersion: v1
kind: Pod
metadata:
  name: web-0
  namespace: shop
  uid: 6b1f
  annotations: {sealane.dev/inbound-port: \"15008\"}
spec:
  serviceAccountName: web
  nodeName: n1
  containers: []
status: {podIP: 10.1.0.1, podIPs: [{ip: 10.1.0.1}]}
";

fn service() -> PartKey {
    PartKey::Service(ServiceKey::parse("shop/web").unwrap())
}

/// The keys that were put (`+`) and removed (`-`), and the problems if they changed.
fn told(events: Vec<SourceEvent>) -> (Vec<String>, Option<Vec<Problem>>) {
    let (mut changes, mut problems) = (Vec::new(), None);
    for event in events {
        match event {
            SourceEvent::Changed(list) => changes.extend(list.into_iter().map(|c| match c {
                Change::Put(part) => format!("+{}", part.key()),
                Change::Remove(key) => format!("-{key}"),
            })),
            SourceEvent::Problems(list) => problems = Some(list),
            other => panic!("{other:?}"),
        }
    }
    (changes, problems)
}

fn problem(document: usize, object: Option<&str>, field: &str) -> (usize, Option<String>, String) {
    (document, object.map(str::to_owned), field.to_owned())
}

fn places(problems: &[Problem]) -> Vec<(usize, Option<String>, String)> {
    problems.iter().map(|p| (p.document, p.object.clone(), p.field.clone())).collect()
}

fn write(directory: &Path, name: &str, documents: &[&str]) -> std::path::PathBuf {
    let path = directory.join(name);
    fs::write(&path, documents.join("---\n")).unwrap();
    path
}

#[test]
fn a_file_becomes_parts_and_other_kinds_are_passed_over() {
    let directory = tempfile::tempdir().unwrap();
    let mut files = Files::new(directory.path().to_owned());
    let other = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n";
    let path = write(directory.path(), "a.yaml", &["", SERVICE, other, "# nothing\n", POD, EXPORT]);
    files.read(&path);
    let changes = ["+Service shop/web", "+Pod shop/web-0", "+ServiceExport shop/web"];
    assert_eq!(told(files.take_events()), (changes.map(str::to_owned).to_vec(), Some(vec![])));
    files.read(&path);
    assert_eq!(told(files.take_events()), (vec![], None), "nothing changed");
    fs::remove_file(&path).unwrap();
    files.read(&path);
    let gone = ["-Service shop/web", "-Pod shop/web-0", "-ServiceExport shop/web"];
    assert_eq!(told(files.take_events()).0, gone);
}

#[test]
fn a_bad_field_is_named_and_its_object_stays_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let mut files = Files::new(directory.path().to_owned());
    let path = write(directory.path(), "a.yaml", &[SERVICE, POD]);
    files.read(&path);
    files.take_events();
    let table = [
        ("port: 80", "port: eighty", "spec.ports[0].port"),
        ("port: 80", "port: 80000", "spec.ports[0].port"),
        ("name: http", "name: HTTP", "spec.ports[0].name"),
        ("clusterIP: 10.0.0.1", "ipFamilies: [IPv5]", "spec.ipFamilies"),
    ];
    for (good, bad, field) in table {
        write(directory.path(), "a.yaml", &[&SERVICE.replace(good, bad), &POD.replace("n1", "n2")]);
        files.read(&path);
        let (changes, problems) = told(files.take_events());
        assert_eq!(changes, ["+Pod shop/web-0"], "{bad}: the other object goes on");
        assert_eq!(places(&problems.unwrap()), [problem(1, Some("Service shop/web"), field)], "{bad}");
        write(directory.path(), "a.yaml", &[SERVICE, POD]);
        files.read(&path);
        assert_eq!(told(files.take_events()), (vec!["+Pod shop/web-0".to_owned()], Some(vec![])), "healed");
    }
}

#[test]
fn a_document_that_tells_nothing_takes_nothing_away() {
    let directory = tempfile::tempdir().unwrap();
    let mut files = Files::new(directory.path().to_owned());
    let path = write(directory.path(), "a.yaml", &[SERVICE, POD]);
    files.read(&path);
    files.take_events();
    write(directory.path(), "a.yaml", &["kind: [unclosed\n", POD]);
    files.read(&path);
    let (changes, problems) = told(files.take_events());
    assert_eq!(changes, Vec::<String>::new());
    let problems = problems.unwrap();
    assert_eq!((problems.len(), problems[0].document, problems[0].object.clone()), (1, 1, None));
    write(directory.path(), "a.yaml", &[POD]);
    files.read(&path);
    assert_eq!(told(files.take_events()).0, ["-Service shop/web"], "a good file without it means it");
}

#[test]
fn an_object_in_two_files_is_the_first_files() {
    let directory = tempfile::tempdir().unwrap();
    let mut files = Files::new(directory.path().to_owned());
    write(directory.path(), "a.yaml", &[SERVICE]);
    let second = write(directory.path(), "b.yaml", &[&SERVICE.replace("80", "81")]);
    files.scan().unwrap();
    let events = files.take_events();
    let port = |events: &[SourceEvent]| {
        events.iter().find_map(|e| match e {
            SourceEvent::Changed(changes) => changes.iter().find_map(|c| match c {
                Change::Put(Part::Service(_, facts)) => Some(facts.ports[0].port),
                _ => None,
            }),
            _ => None,
        })
    };
    assert_eq!(port(&events), Some(80));
    assert_eq!(told(events).1.unwrap().len(), 1);
    fs::remove_file(directory.path().join("a.yaml")).unwrap();
    files.scan().unwrap();
    assert_eq!(port(&files.take_events()), Some(81), "now the second one counts");
    fs::remove_file(second).unwrap();
    files.scan().unwrap();
    assert_eq!(told(files.take_events()).0, [format!("-{}", service())]);
}

#[test]
fn bounds_hold() {
    let directory = tempfile::tempdir().unwrap();
    let mut files = Files::new(directory.path().to_owned());
    let path = write(directory.path(), "a.yaml", &[SERVICE]);
    files.read(&path);
    files.take_events();
    let large = "#".repeat(usize::try_from(MAX_FILE).unwrap() + 1);
    let bombs = [
        large,
        "---\na: b\n".repeat(MAX_DOCUMENTS + 1),
        format!("a: &a [{}]\nb: [{}]\n", "x,".repeat(1_000), "*a,".repeat(2_000)),
        "[".repeat(10_000),
    ];
    for bomb in bombs {
        fs::write(&path, bomb).unwrap();
        files.read(&path);
        let (changes, problems) = told(files.take_events());
        assert_eq!(changes, Vec::<String>::new(), "what was there stays");
        assert!(problems.is_none_or(|p| !p.is_empty()));
    }
}

#[tokio::test]
async fn a_directory_that_goes_is_an_error_and_not_an_empty_cluster() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("manifests");
    let (sender, mut events) = mpsc::channel(64);
    tokio::spawn(run(directory.clone(), sender));
    let mut next =
        async || tokio::time::timeout(Duration::from_secs(10), events.recv()).await.unwrap().unwrap();
    assert!(matches!(next().await, SourceEvent::Unavailable(why) if !why.is_empty()), "it is not there yet");

    fs::create_dir(&directory).unwrap();
    write(&directory, "a.yaml", &[SERVICE]);
    let mut seen = Vec::new();
    while seen.last() != Some(&SourceEvent::Ready) {
        seen.push(next().await);
    }
    assert!(seen.iter().any(|e| matches!(e, SourceEvent::Changed(c) if c.len() == 1)), "{seen:?}");

    // A file that is moved into place, as editors and controllers do.
    let unfinished = write(&directory, "b.yaml.tmp", &[POD]);
    fs::rename(unfinished, directory.join("b.yaml")).unwrap();
    assert_eq!(told(vec![next().await]).0, ["+Pod shop/web-0"]);

    fs::remove_file(directory.join("b.yaml")).unwrap();
    assert_eq!(told(vec![next().await]).0, ["-Pod shop/web-0"]);

    fs::rename(&directory, parent.path().join("elsewhere")).unwrap();
    assert!(
        matches!(next().await, SourceEvent::Unavailable(why) if !why.is_empty()),
        "and nothing was removed"
    );
}

/// A directory as the README gives it, relative to where the agent was started.
fn relative(path: &Path) -> std::path::PathBuf {
    let here = std::env::current_dir().unwrap();
    let up: std::path::PathBuf = here.components().skip(1).map(|_| "..").collect();
    up.join(path.strip_prefix("/").unwrap())
}

#[tokio::test]
async fn a_directory_that_is_exchanged_is_noticed_though_its_name_is_relative() {
    let parent = tempfile::tempdir().unwrap();
    let parent = fs::canonicalize(parent.path()).unwrap();
    let directory = parent.join("manifests");
    fs::create_dir_all(&directory).unwrap();
    write(&directory, "a.yaml", &[SERVICE]);
    let (sender, mut events) = mpsc::channel(64);
    tokio::spawn(run(relative(&directory), sender));
    let mut put = async |key: &str| loop {
        let next = tokio::time::timeout(Duration::from_secs(10), events.recv()).await.unwrap().unwrap();
        if let SourceEvent::Changed(changes) = next
            && told(vec![SourceEvent::Changed(changes)]).0.iter().any(|c| c == key)
        {
            return;
        }
    };
    put("+Service shop/web").await;
    // Moved away, and another one is there at once.
    let next = parent.join("next");
    fs::create_dir(&next).unwrap();
    write(&next, "a.yaml", &[SERVICE, POD]);
    fs::rename(&directory, parent.join("old")).unwrap();
    fs::rename(&next, &directory).unwrap();
    put("+Pod shop/web-0").await;
    // The new one is watched.
    write(&directory, "b.yaml", &[EXPORT]);
    put("+ServiceExport shop/web").await;
    fs::remove_dir_all(&parent).unwrap();
}

#[test]
fn however_a_document_says_its_kind_it_is_the_same_object_or_refused() {
    let directory = tempfile::tempdir().unwrap();
    let mut files = Files::new(directory.path().to_owned());
    let mut read = |text: &str| {
        let path = write(directory.path(), "a.yaml", &[text]);
        files.read(&path);
        told(files.take_events())
    };
    assert_eq!(read(POD).0, ["+Pod shop/web-0"]);
    assert_eq!(
        read(&POD.replace("kind: Pod", "kind: \"Pod\"  # quoted")).0,
        Vec::<String>::new(),
        "the same"
    );
    let refused = |(changes, problems): (Vec<String>, Option<Vec<Problem>>)| {
        assert_eq!(changes, Vec::<String>::new());
        problems.unwrap().remove(0)
    };
    let problem = refused(read(&POD.replace("apiVersion: v1\n", "")));
    assert_eq!((problem.field.as_str(), problem.reason.as_str()), ("apiVersion", "is missing"));
    let problem = refused(read(&POD.replace("podIP: 10.1.0.1,", "podIP: 7000,").replace("10.1.0.1", "x")));
    assert!(problem.field.starts_with("status.podIP"), "{problem:?}");
    // A line inside a text is no kind.
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata:\n  a: |\n    kind: Pod\n";
    assert_eq!(read(text).0, ["-Pod shop/web-0"]);
}
