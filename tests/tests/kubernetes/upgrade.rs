//! Sealane is upgraded from the packaged charts and the image of the former version to those of this build, and taken
//! back, while pods of one cluster call a Service of the other and ask Sealane's DNS for it: no request fails.
//!
//! Agents of this build answer until nobody asks them any more, so that not one datagram is lost where they go. Those of the
//! former version end while they are still counted ready, and kube-proxy leads a port that was used before to whom it led it
//! then until it hears that he is gone. Such a question alone has a second attempt, and only while they go.

use crate::clusters::POD;
use crate::recording::Recording;
use anyhow::{Result, ensure};
use sealane::local::wait::until_true;
use sealane_tests::charts::packages::Packages;
use sealane_tests::charts::{NAMESPACE, root};
use sealane_tests::clusters::{Environment, Product, in_clusters, two};
use sealane_tests::former::{self, Former};
use sealane_tests::oci::product::program;
use sealane_tests::traffic::{Count, failures};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use tempfile::{NamedTempFile, TempDir};

/// The image of the applications.
const IMAGE: &str = "docker.io/library/traffic:test";
const NAME: &str = "echo.shop.svc.clusterset.local.";
/// The pods of `west` that ask, fifty times a second each.
const CLIENTS: [&str; 2] = ["caller", "resolver"];
/// How many requests of each there are at least, whatever else the machine has to do.
const REQUESTS: u64 = 2000;
/// Of so many questions one may be lost while agents of the former version go.
const AGAIN: u64 = 200;
/// How long a change may take while pods are replaced and their images are new.
const CHANGE: Duration = Duration::from_secs(60);

#[test]
fn no_request_fails_while_sealane_is_upgraded_and_rolled_back() {
    in_clusters("no_request_fails_while_sealane_is_upgraded_and_rolled_back", async |place| {
        let versions = tokio::task::spawn_blocking(Versions::make).await??;
        let (now, former) = (&versions.now, &versions.former);
        let environment = &Environment::up_with(place, &two(), former).await?;
        furnish(environment, now).await?;
        let mut traffic = Traffic::begin(environment).await?;
        let mut recordings =
            [Recording::begin(environment, "east").await?, Recording::begin(environment, "west").await?];

        environment.upgrade(now).await?;
        runs(environment, now.version()).await?;
        traffic.goes_on("after the upgrade").await?;
        let of_the_former = traffic.again();
        scale(environment, 3).await?;
        traffic.goes_on("after a pod more").await?;

        environment.roll_back().await?;
        runs(environment, former.version()).await?;
        traffic.goes_on("after the rollback").await?;
        scale(environment, 2).await?;
        traffic.goes_on("after a pod less").await?;

        for recording in &mut recordings {
            let changes = recording.changes()?;
            let taken: Vec<_> = changes.iter().filter(|change| change.takes_away()).collect();
            ensure!(taken.is_empty(), "something was taken away: {taken:#?}");
            ensure!(!changes.is_empty(), "the pods that came and went are changes");
        }
        for count in traffic.counts().await? {
            ensure!(count.failed == 0 && count.answered >= REQUESTS, "{count:?}");
        }
        ensure!(of_the_former * AGAIN <= REQUESTS, "{of_the_former} questions were lost in the upgrade");
        ensure!(traffic.again() == of_the_former, "agents of this build went, and {}", traffic.lost().await?);
        can_fail(environment, &traffic, &mut recordings).await
    });
}

/// What is upgraded from, and to; in packages, as people get it.
struct Versions {
    former: Product,
    now: Product,
    _packages: TempDir,
}

impl Versions {
    fn make() -> Result<Self> {
        let folder = TempDir::new()?;
        let Former { version, binary, charts } = former::find()?;
        let former = product(&binary, &charts, folder.path(), &version)?;
        let now = sealane_tests::binary::path()?;
        let now = product(&now, &root().join("charts"), folder.path(), env!("CARGO_PKG_VERSION"))?;
        Ok(Versions { former, now, _packages: folder })
    }
}

/// Three servers, and two agents in each cluster.
fn product(binary: &Path, charts: &Path, folder: &Path, version: &str) -> Result<Product> {
    let values = folder.join("agents.json");
    std::fs::write(&values, json!({"agent": {"replicas": 2}}).to_string())?;
    Ok(Product {
        binary: binary.to_owned(),
        servers: 3,
        values: vec![("sealane-cluster".to_owned(), values)],
        packages: Some(Packages::make(charts, folder, version)?),
    })
}

/// The image of this build, and the application with its export.
async fn furnish(environment: &Environment, now: &Product) -> Result<()> {
    environment.load(now.image().await?.path()).await?;
    let archive = NamedTempFile::new()?;
    let traffic = Path::new(env!("CARGO_BIN_EXE_traffic"));
    program("traffic", traffic, vec![IMAGE.to_owned()])?.write(archive.path())?;
    environment.load(archive.path()).await?;
    for cluster in ["east", "west"] {
        environment.kubectl(cluster, &["create", "namespace", "shop"]).await?;
    }
    environment.apply("east", &application().to_string()).await?;
    imported(environment, 2).await
}

fn application() -> Value {
    let labels = json!({"app": "echo"});
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "echo", "namespace": "shop"},
        "spec": {"replicas": 2, "selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels},
            "spec": {
                // It answers until then: its clients hear later than itself that it goes.
                "terminationGracePeriodSeconds": 25,
                "containers": [{
                    "name": "echo", "image": IMAGE, "imagePullPolicy": "IfNotPresent",
                    "args": ["serve", "--listen=[::]:8080", "--text=here is east"],
                    "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
                }],
            },
        }},
    });
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "echo", "namespace": "shop"},
        "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": 8080}]},
    });
    let export = json!({
        "apiVersion": "multicluster.x-k8s.io/v1beta1", "kind": "ServiceExport",
        "metadata": {"name": "echo", "namespace": "shop"},
    });
    json!({"apiVersion": "v1", "kind": "List", "items": [deployment, service, export]})
}

/// Another number of pods in `east`, and `west` knows it.
async fn scale(environment: &Environment, pods: usize) -> Result<()> {
    let replicas = format!("--replicas={pods}");
    environment.kubectl("east", &["scale", "--namespace=shop", "deployment/echo", &replicas]).await?;
    imported(environment, pods).await
}

/// As many endpoints of `east` are in the slices of `west`.
async fn imported(environment: &Environment, pods: usize) -> Result<()> {
    until_true(&format!("west has {pods} endpoints"), CHANGE, async || {
        let words = [
            "get",
            "endpointslices",
            "--namespace=shop",
            "--selector=multicluster.kubernetes.io/service-name=echo",
            "--output=jsonpath={.items[*].endpoints[*].addresses[0]}",
        ];
        let addresses = environment.kubectl("west", &words).await?;
        ensure!(addresses.split_whitespace().count() == pods, "it has {addresses:?}");
        Ok(true)
    })
    .await
    .map(drop)
}

/// Every pod of Sealane is of this version.
async fn runs(environment: &Environment, version: &str) -> Result<()> {
    for (cluster, pods) in [("east", 5), ("west", 2)] {
        let images = "--output=jsonpath={.items[*].spec.containers[*].image}";
        let said = environment.kubectl(cluster, &["get", "pods", "--namespace", NAMESPACE, images]).await?;
        let expected = vec![format!("sealane:{version}"); pods];
        ensure!(said.split_whitespace().eq(&expected), "{cluster} runs {said}, not {expected:?}");
    }
    Ok(())
}

/// The clients, and how far they were when somebody looked.
struct Traffic<'a> {
    environment: &'a Environment,
    seen: [Count; 2],
}

impl<'a> Traffic<'a> {
    async fn begin(environment: &'a Environment) -> Result<Self> {
        let dns = ["get", "service/sealane-dns", "--namespace", NAMESPACE];
        let dns = [&dns[..], &["--output=jsonpath={.spec.clusterIP}"]].concat();
        let server = format!("--server={}:53", environment.kubectl("west", &dns).await?);
        let (target, name) = (format!("--target={NAME}:80"), format!("--name={NAME}"));
        let caller = client(CLIENTS[0], &["call", &target, "--expected=here is east", "--every-ms=20"]);
        let resolver = client(CLIENTS[1], &["resolve", &server, &name, "--every-ms=20"]);
        let clients = json!({"apiVersion": "v1", "kind": "List", "items": [caller, resolver]});
        environment.apply("west", &clients.to_string()).await?;
        let mut traffic = Traffic { environment, seen: [Count::default(); 2] };
        until_true("there is traffic", POD, async || {
            Ok(traffic.counts().await?.iter().all(|count| count.answered > 100))
        })
        .await?;
        traffic.goes_on("at the beginning").await?;
        Ok(traffic)
    }

    /// Nothing failed until now, and more was answered since somebody looked last.
    async fn goes_on(&mut self, when: &str) -> Result<()> {
        until_true(&format!("more is answered {when}"), CHANGE, async || {
            let counts = self.counts().await?;
            Ok(counts.iter().zip(&self.seen).all(|(now, then)| now.answered >= then.answered + 100))
        })
        .await?;
        self.seen = self.counts().await?;
        eprintln!("{when}: {:?}", self.seen);
        let lost = self.lost().await?;
        ensure!(self.seen.iter().all(|count| count.failed == 0), "{when}: {:?}\n{lost}", self.seen);
        eprint!("{lost}");
        Ok(())
    }

    /// How many questions had a second attempt, when somebody looked last.
    fn again(&self) -> u64 {
        self.seen.iter().map(|count| count.again).sum()
    }

    /// What failed, or did at the first attempt, and when.
    async fn lost(&self) -> Result<String> {
        let mut text = String::new();
        for client in CLIENTS {
            let log = self.log(client, &["--timestamps"]).await?;
            text.extend(failures(&log).iter().map(|line| format!("{client}: {line}\n")));
        }
        Ok(text)
    }

    async fn counts(&self) -> Result<[Count; 2]> {
        let count = async |client: &str| Count::last_of(&self.log(client, &["--tail=300"]).await?);
        Ok([count(CLIENTS[0]).await?, count(CLIENTS[1]).await?])
    }

    /// What a client printed; one that was restarted would have forgotten what it counted.
    async fn log(&self, client: &str, how: &[&str]) -> Result<String> {
        let restarts = "--output=jsonpath={.status.containerStatuses[0].restartCount}";
        let restarts =
            self.environment.kubectl("west", &["get", "pod", client, "--namespace=shop", restarts]).await?;
        ensure!(restarts == "0", "{client} was restarted: {restarts}");
        self.environment.kubectl("west", &[&["logs", "--namespace=shop", client], how].concat()).await
    }
}

fn client(name: &str, args: &[&str]) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "shop"},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            // The name has one attempt, whose limit is longer than the client's own.
            "dnsConfig": {"options": [{"name": "attempts", "value": "1"}, {"name": "timeout", "value": "10"}]},
            "containers": [{"name": name, "image": IMAGE, "imagePullPolicy": "IfNotPresent", "args": args}],
        },
    })
}

/// What counted no failure does count them, and what recorded nothing that was taken away does record it.
async fn can_fail(
    environment: &Environment,
    traffic: &Traffic<'_>,
    recordings: &mut [Recording],
) -> Result<()> {
    environment.kubectl("east", &["delete", "serviceexport/echo", "--namespace=shop"]).await?;
    until_true("requests fail without the export", CHANGE, async || {
        Ok(traffic.counts().await?.iter().all(|count| count.failed > 0))
    })
    .await?;
    for recording in recordings {
        let taken = recording.changes()?.iter().any(crate::history::Change::takes_away);
        ensure!(taken, "the import's end is not recorded");
    }
    Ok(())
}
