//! The sink of a Kubernetes cluster against a real API server: what becomes of its server-side applies.

use anyhow::{Context, Result, ensure};
use sealane::local::Lab;
use sealane::local::wait::{until, until_true};
use sealane_agent::catalog::Catalog;
use sealane_agent::config::{Common, Given, Outbound};
use sealane_agent::desired::Confirmed;
use sealane_agent::lease::Leadership;
use sealane_agent::sink::kubernetes::{self, Inputs, SinkMetrics};
use sealane_agent::status::Status;
use sealane_agent::view::Held;
use sealane_core::endpoint::Locality;
use sealane_core::identity::FederationId;
use sealane_core::name::{EndpointId, ServiceKey};
use sealane_core::service::{InternalTrafficPolicy, IpFamily, Port, Protocol, ServiceType, SessionAffinity};
use sealane_core::time::Revision;
use sealane_core::view::{Candidate, Import, Path, Tier};
use sealane_tests::control_plane::{ControlPlane, Shape};
use sealane_tests::{PATIENCE, in_lab, skip, tools};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The kinds that the sink writes.
const KINDS: &str = "serviceimports,services,endpointslices";
/// For how long somebody keeps changing an object: we write at 0, 1, 3, 7 and 15 seconds.
const FIGHT: Duration = Duration::from_secs(16);

/// A sink at work in a cluster, fed by hand.
struct Bench {
    plane: ControlPlane,
    common: watch::Sender<Option<Arc<Common>>>,
    status: Arc<Status>,
    metrics: Arc<SinkMetrics>,
    assigned: watch::Receiver<kubernetes::ImportAddresses>,
    revision: u64,
    running: Option<Running>,
}

struct Running {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Bench {
    async fn new(lab: &Lab, place: u8) -> Result<Self> {
        let plane = ControlPlane::start(lab, Shape::new("east", place)).await?;
        crds(&plane).await?;
        plane.kubectl(&["create", "namespace", "shop"]).await?;
        let (common, status) = (watch::Sender::new(None), Arc::new(Status::default()));
        let metrics = Arc::default();
        let assigned = watch::Sender::new(kubernetes::ImportAddresses::new()).subscribe();
        let mut bench = Bench { plane, common, status, metrics, assigned, revision: 0, running: None };
        bench.start().await?;
        Ok(bench)
    }

    /// Starts the sink, which is not running.
    async fn start(&mut self) -> Result<()> {
        let args = sealane_agent::args::Kubernetes {
            kubeconfig: Some(self.plane.kubeconfig().to_owned()),
            context: None,
            namespace: "sealane-system".parse()?,
            replica: "agent-0".to_owned(),
        };
        let client = sealane_agent::kubernetes::client(&args).await?;
        let assigned = watch::Sender::new(kubernetes::ImportAddresses::new());
        self.assigned = assigned.subscribe();
        let inputs = Inputs {
            cluster: "east".parse()?,
            federation: FederationId([7; 16]),
            namespace: "default".to_owned(),
            replica: "agent-0".to_owned(),
            held: watch::Sender::new(Arc::new(Held::nothing())).subscribe(),
            common: self.common.subscribe(),
            refused: self.status.refused(),
            acknowledged: self.status.acknowledged(),
            confirmed: Confirmed::default(),
            assigned,
            status: self.status.clone(),
            metrics: self.metrics.clone(),
            over: false,
        };
        let stop = CancellationToken::new();
        let task = tokio::spawn(kubernetes::run(client, inputs, Leadership::alone(), stop.clone()));
        self.running = Some(Running { stop, task });
        Ok(())
    }

    async fn stop(&mut self) -> Result<()> {
        if let Some(Running { stop, task }) = self.running.take() {
            stop.cancel();
            task.await?;
        }
        Ok(())
    }

    /// These, and no others, are imported now.
    fn imports(&mut self, imports: &[Import]) {
        self.revision += 1;
        let mut common = Common::default();
        common.revision = Revision { generation: 1, index: self.revision };
        let interest = BTreeSet::from(["shop".parse().unwrap(), "absent".parse().unwrap()]);
        common.catalog = Arc::new(Catalog { interest: Arc::new(interest), ..Catalog::default() });
        for import in imports {
            let outbound = Outbound::of(Arc::new(import.clone()), Given::default());
            common.outbound.insert(import.service.clone(), Arc::new(outbound));
        }
        self.common.send_replace(Some(Arc::new(common)));
    }

    async fn get(&self, what: &str) -> Result<Value> {
        object(&self.plane, what).await
    }

    async fn ready(&self, import: &str) -> Result<Value> {
        let what = format!("ServiceImport {import} is ready");
        let found = until(&what, PATIENCE, async || {
            let found = self.get(&format!("serviceimport/{import}")).await?;
            let ready = &found["status"]["conditions"][0];
            ensure!(ready["status"] == "True", "{ready}");
            Ok((ready["observedGeneration"] == found["metadata"]["generation"]).then_some(found))
        });
        Ok(found.await?.0)
    }

    /// The version of each object of ours, by kind and name.
    async fn versions(&self) -> Result<BTreeMap<String, (String, String)>> {
        let list: Value = serde_json::from_str(
            &self.plane.kubectl(&["get", KINDS, "--namespace=shop", "--output=json"]).await?,
        )?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let items = list["items"].as_array().context("items")?.iter();
        Ok(items
            .map(|item| {
                let meta = &item["metadata"];
                let name = format!("{}/{}", text(&item["kind"]), text(&meta["name"]));
                (name, (text(&meta["uid"]), text(&meta["resourceVersion"])))
            })
            .collect())
    }
}

pub(crate) async fn crds(plane: &ControlPlane) -> Result<()> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/sealane-crds/files");
    plane.kubectl(&["apply", "--server-side", "--filename", folder]).await?;
    plane.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"]).await?;
    Ok(())
}

/// An object of the namespace `shop`.
pub(crate) async fn object(plane: &ControlPlane, what: &str) -> Result<Value> {
    let text = plane.kubectl(&["get", what, "--namespace=shop", "--output=json"]).await?;
    Ok(serde_json::from_str(&text)?)
}

fn import(name: &str, addresses: &[&str]) -> Import {
    let place = |address: &&str| Candidate {
        cluster: "west".parse().unwrap(),
        tier: Tier::Remote,
        path: Path::Direct {
            id: EndpointId::parse(&format!("e-{}", "a".repeat(13))).unwrap(),
            address: address.parse().unwrap(),
            ports: BTreeMap::from([("http".parse().unwrap(), 8080)]),
            locality: Locality::default(),
            spiffe_id: None,
            inbound_port: None,
            hostname: None,
        },
    };
    Import {
        service: ServiceKey::parse(&format!("shop/{name}")).unwrap(),
        service_type: ServiceType::ClusterSetIp,
        ports: vec![Port {
            name: "http".parse().unwrap(),
            protocol: Protocol::Tcp,
            port: 80,
            app_protocol: Some("http".to_owned()),
        }],
        session_affinity: SessionAffinity::ClientIp,
        session_affinity_timeout_s: Some(10),
        internal_traffic_policy: InternalTrafficPolicy::Cluster,
        traffic_distribution: Some("PreferClose".to_owned()),
        ip_families: vec![IpFamily::V4],
        labels: BTreeMap::from([("team".to_owned(), "a".to_owned())]),
        annotations: BTreeMap::from([("note".to_owned(), "b".to_owned())]),
        clusters: BTreeSet::from(["west".parse().unwrap()]),
        candidates: addresses.iter().map(place).collect(),
        unreached: BTreeMap::new(),
    }
}

/// Runs a test where there is a control plane for it.
pub(crate) fn with_plane(name: &str, test: impl AsyncFnOnce(&Lab) -> Result<()>) {
    let needed = [&tools::ETCD, &tools::API_SERVER, &tools::KUBECTL];
    match tools::missing(&needed) {
        Some(reason) => skip(name, &reason),
        None => in_lab(test),
    }
}

#[test]
fn imports_become_objects_that_are_written_once() {
    with_plane("imports_become_objects_that_are_written_once", async |lab| {
        let mut bench = Bench::new(lab, 11).await?;
        let (web, cart) = (import("web", &["10.2.0.1", "10.2.0.2"]), import("cart", &["10.2.0.3"]));
        bench.imports(std::slice::from_ref(&web));
        let found = bench.ready("web").await?;
        let address = found["spec"]["ips"][0].clone();
        let derived = found["metadata"]["annotations"]["multicluster.kubernetes.io/derived-service"].clone();
        let derived = derived.as_str().context("a derived Service")?.to_owned();
        let service = bench.get(&format!("service/{derived}")).await?;
        assert_eq!(service["spec"]["clusterIPs"], Value::Array(vec![address.clone()]));
        assert_eq!(service["spec"]["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"], 10);
        assert_eq!(found["metadata"]["labels"]["team"], "a");
        assert_eq!(found["status"]["clusters"][0]["cluster"], "west");
        assert_eq!(found["status"]["endpointSliceObjects"], "Present");
        let chosen = format!("kubernetes.io/service-name={derived}");
        let question = ["get", "endpointslices", "--namespace=shop", "-l", &chosen, "-ojson"];
        let slices: Value = serde_json::from_str(&bench.plane.kubectl(&question).await?)?;
        assert_eq!(slices["items"][0]["endpoints"].as_array().map(Vec::len), Some(2), "{slices}");
        let told = bench.assigned.borrow().clone();
        assert_eq!(
            told.get(&web.service).map(|given| given.addresses[0].to_string()).as_deref(),
            address.as_str()
        );

        // What is as it should be is not written again, whatever else changes.
        let before = bench.versions().await?;
        bench.imports(&[web.clone(), cart]);
        bench.ready("cart").await?;
        let mut after = bench.versions().await?;
        after.retain(|name, _| before.contains_key(name));
        assert_eq!(before, after);

        // Nor by another sink that finds it.
        bench.stop().await?;
        bench.start().await?;
        let third = import("third", &[]);
        bench.imports(&[web.clone(), import("cart", &["10.2.0.3"]), third]);
        bench.ready("third").await?;
        let mut after = bench.versions().await?;
        after.retain(|name, _| before.contains_key(name));
        assert_eq!(before, after);

        // Somebody's change is undone, and what it beside ours adds stays.
        bench
            .plane
            .kubectl(&["label", "serviceimport/web", "--namespace=shop", "team=z", "mine=1", "--overwrite"])
            .await?;
        until_true("the label is ours again", PATIENCE, async || {
            let labels = bench.get("serviceimport/web").await?["metadata"]["labels"].clone();
            Ok(labels["team"] == "a" && labels["mine"] == "1")
        })
        .await?;

        bench.imports(&[]);
        until_true("nothing is left", PATIENCE, async || Ok(bench.versions().await?.is_empty())).await?;
        let properties =
            bench.plane.kubectl(&["get", "clusterproperties", "-ojsonpath={.items[*].spec.value}"]).await?;
        assert_eq!(properties, format!("east {}", FederationId([7; 16])));
        Ok(())
    });
}

#[test]
fn a_service_keeps_its_address_until_somebody_else_has_it() {
    with_plane("a_service_keeps_its_address_until_somebody_else_has_it", async |lab| {
        let mut bench = Bench::new(lab, 12).await?;
        bench.imports(&[import("web", &["10.2.0.1"])]);
        let found = bench.ready("web").await?;
        let address = found["spec"]["ips"][0].as_str().context("an address")?.to_owned();
        let derived = found["metadata"]["annotations"]["multicluster.kubernetes.io/derived-service"].clone();
        let derived = derived.as_str().context("a derived Service")?.to_owned();
        let uid = bench.get(&format!("service/{derived}")).await?["metadata"]["uid"].clone();
        bench.plane.kubectl(&["delete", "service", &derived, "--namespace=shop"]).await?;
        until_true("the Service is there again", PATIENCE, async || {
            let service = bench.get(&format!("service/{derived}")).await?;
            Ok(service["metadata"]["uid"] != uid && service["spec"]["clusterIP"] == address.as_str())
        })
        .await?;

        bench.stop().await?;
        bench.plane.kubectl(&["delete", "service", &derived, "--namespace=shop"]).await?;
        let thief = format!("--clusterip={address}");
        bench
            .plane
            .kubectl(&["create", "service", "clusterip", "thief", "--tcp=1", &thief, "--namespace=shop"])
            .await?;
        bench.start().await?;
        until_true("the import has another address", PATIENCE, async || {
            let import = bench.get("serviceimport/web").await?;
            let ip = import["spec"]["ips"][0].as_str().unwrap_or_default();
            Ok(ip != address && !ip.is_empty() && import["status"]["conditions"][0]["status"] == "True")
        })
        .await?;
        let notes = bench
            .plane
            .kubectl(&["get", "events", "--namespace=shop", "-ojsonpath={.items[*].message}"])
            .await?;
        assert!(notes.contains(&format!("the address {address} is another Service's now")), "{notes}");
        Ok(())
    });
}

#[test]
fn what_others_made_is_not_touched() {
    with_plane("what_others_made_is_not_touched", async |lab| {
        let mut bench = Bench::new(lab, 13).await?;
        bench.imports(&[]);
        let theirs = r#"{"apiVersion": "multicluster.x-k8s.io/v1beta1", "kind": "ServiceImport",
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"type": "Headless", "ports": [{"port": 1, "protocol": "TCP"}]}}"#;
        bench.plane.apply(theirs).await?;
        bench.imports(&[import("web", &["10.2.0.1"]), import("cart", &["10.2.0.3"])]);
        bench.ready("cart").await?;
        let told = async || -> Result<Vec<String>> {
            let notes =
                ["get", "events", "--namespace=shop", "-ojsonpath={range .items[*]}{.message}{'\\n'}{end}"];
            let notes = bench.plane.kubectl(&notes).await?;
            Ok(notes.lines().filter(|n| n.contains("it is not taken over")).map(str::to_owned).collect())
        };
        until_true("it is told", PATIENCE, async || Ok(told().await?.len() == 1)).await?;
        // What else there is to say for the same reason is an Event of its own.
        let mark = ["label", "serviceimport/web", "team=b", "--field-manager=another", "--namespace=shop"];
        bench.plane.kubectl(&mark).await?;
        until_true("the other writer is told", PATIENCE, async || {
            let told = told().await?;
            Ok(told.len() == 2 && told.iter().filter(|note| note.contains("another")).count() == 1)
        })
        .await?;
        let before = bench.get("serviceimport/web").await?;
        bench.imports(&[]);
        until_true("ours is gone", PATIENCE, async || Ok(bench.versions().await?.len() == 1)).await?;
        assert_eq!(bench.get("serviceimport/web").await?, before);

        // The derived Service, where somebody was before.
        let name = sealane_agent::sink::kubernetes::derived::name(&ServiceKey::parse("shop/late").unwrap());
        bench
            .plane
            .kubectl(&["create", "service", "clusterip", &name, "--tcp=1", "--namespace=shop"])
            .await?;
        let before = bench.get(&format!("service/{name}")).await?;
        bench.imports(&[import("late", &["10.2.0.1"])]);
        until_true("the import says why it is not ready", PATIENCE, async || {
            let ready = bench.get("serviceimport/late").await?["status"]["conditions"][0].clone();
            Ok(ready["status"] == "False" && ready["message"].to_string().contains("was made by kubectl"))
        })
        .await?;
        assert_eq!(bench.get(&format!("service/{name}")).await?, before);
        Ok(())
    });
}

#[test]
fn a_slice_that_loses_a_label_gets_it_back() {
    with_plane("a_slice_that_loses_a_label_gets_it_back", async |lab| {
        let mut bench = Bench::new(lab, 18).await?;
        let others = [import("web-shop", &["10.2.0.1"]), import("web", &["10.2.0.9"])];
        bench.imports(&others);
        bench.ready("web").await?;
        bench.ready("web-shop").await?;
        let slices = bench.get("endpointslices").await?;
        let served = |slice: &&Value| slice["endpoints"][0]["addresses"][0] == "10.2.0.1";
        let slice = slices["items"].as_array().context("items")?.iter().find(served).context("a slice")?;
        let named = format!("endpointslice/{}", slice["metadata"]["name"].as_str().context("a name")?);
        let labels = &slice["metadata"]["labels"];
        let damages: [&[&str]; 4] = [
            &["multicluster.kubernetes.io/service-name-"],
            &["multicluster.kubernetes.io/service-name=web"],
            &["endpointslice.kubernetes.io/managed-by-"],
            &["multicluster.kubernetes.io/service-name-", "multicluster.kubernetes.io/source-cluster-"],
        ];
        for damage in damages {
            let words = ["label", &named, "--namespace=shop", "--overwrite"];
            bench.plane.kubectl(&[&words, damage].concat()).await?;
            until_true(&format!("{damage:?} is mended"), PATIENCE, async || {
                let now = bench.get(&named).await?;
                ensure!(now["metadata"]["uid"] == slice["metadata"]["uid"], "it is another slice");
                Ok(now["metadata"]["labels"] == *labels)
            })
            .await?;
        }
        Ok(())
    });
}

#[test]
fn who_keeps_changing_what_is_ours_is_answered_ever_more_seldom_and_told() {
    let name = "who_keeps_changing_what_is_ours_is_answered_ever_more_seldom_and_told";
    with_plane(name, async |lab| {
        let mut bench = Bench::new(lab, 17).await?;
        bench.imports(&[import("web", &["10.2.0.1"])]);
        let generation = |import: &Value| import["metadata"]["generation"].as_u64().unwrap_or_default();
        let before = generation(&bench.ready("web").await?);
        let (began, mut theirs) = (Instant::now(), 0);
        while began.elapsed() < FIGHT {
            theirs += 1;
            // Never what it is.
            let seconds = 100 + theirs;
            let patch = json!({"spec": {"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": seconds}}}})
                .to_string();
            let words = ["patch", "serviceimport/web", "--namespace=shop", "--type=merge", "--patch", &patch];
            bench.plane.kubectl(&words).await?;
        }
        // Each change of the spec is a generation, whoever made it.
        let ours = generation(&bench.get("serviceimport/web").await?).saturating_sub(before + theirs);
        ensure!((1..=7).contains(&ours), "{ours} of our writes beside {theirs} of theirs in {FIGHT:?}");

        let told = "-ojsonpath={.items[?(@.reason=='Contended')].message}";
        until_true("it is told who does it", PATIENCE, async || {
            let told = bench.plane.kubectl(&["get", "events", "--namespace=shop", told]).await?;
            Ok(told.contains("kubectl-patch keeps changing or removing ServiceImport shop/web"))
        })
        .await?;

        // What should be something else now is not held up by it, and takes the rest along.
        let mut web = import("web", &["10.2.0.1"]);
        web.labels = BTreeMap::from([("team".to_owned(), "b".to_owned())]);
        bench.imports(&[web]);
        let at = Instant::now();
        until_true("the label is there", PATIENCE, async || {
            Ok(bench.get("serviceimport/web").await?["metadata"]["labels"]["team"] == "b")
        })
        .await?;
        ensure!(at.elapsed() < FIGHT / 2, "it took {:?}", at.elapsed());
        Ok(())
    });
}

#[test]
fn an_api_server_that_is_away_loses_nothing() {
    with_plane("an_api_server_that_is_away_loses_nothing", async |lab| {
        let mut bench = Bench::new(lab, 14).await?;
        bench.imports(&[import("web", &["10.2.0.1"]), import("cart", &["10.2.0.3"])]);
        bench.ready("web").await?;
        bench.ready("cart").await?;
        let before = bench.versions().await?;
        bench.plane.kill_server();
        bench.plane.restart_server().await?;
        bench.imports(&[
            import("web", &["10.2.0.1"]),
            import("cart", &["10.2.0.3"]),
            import("late", &["10.2.0.4"]),
        ]);
        bench.ready("late").await?;
        let mut after = bench.versions().await?;
        after.retain(|name, _| before.contains_key(name));
        assert_eq!(before, after, "nothing was deleted, made again or rewritten");

        // While it is away something goes and something changes.
        bench.plane.kill_server();
        bench.imports(&[import("web", &["10.2.0.1", "10.2.0.2"]), import("late", &["10.2.0.4"])]);
        bench.plane.restart_server().await?;
        until_true("what changed meanwhile is there", PATIENCE, async || {
            let slices = bench.get("endpointslices").await?;
            let of_web =
                |s: &&Value| s["metadata"]["labels"]["multicluster.kubernetes.io/service-name"] == "web";
            let items = slices["items"].as_array().context("items")?;
            let web = items.iter().find(of_web).context("a slice of web")?;
            let gone = bench.versions().await?.keys().all(|name| name != "ServiceImport/cart");
            Ok(gone && web["endpoints"].as_array().is_some_and(|e| e.len() == 2))
        })
        .await?;
        Ok(())
    });
}

#[test]
fn another_cluster_s_name_or_controller_stops_the_sink() {
    with_plane("another_cluster_s_name_or_controller_stops_the_sink", async |lab| {
        let mut bench = Bench::new(lab, 15).await?;
        let property = r#"{"apiVersion": "about.k8s.io/v1beta1", "kind": "ClusterProperty",
            "metadata": {"name": "cluster.clusterset.k8s.io"}, "spec": {"value": "north"}}"#;
        bench.plane.apply(property).await?;
        bench.imports(&[import("web", &["10.2.0.1"])]);
        let says = async |text: &str| -> Result<()> {
            until_true(text, PATIENCE, async || {
                Ok(bench.status.output_error().is_some_and(|e| e.contains(text)))
            })
            .await?;
            Ok(())
        };
        says("ClusterProperty cluster.clusterset.k8s.io says \"north\", and Sealane would say \"east\"")
            .await?;
        assert!(bench.versions().await?.is_empty());
        let value = bench
            .plane
            .kubectl(&["get", "clusterproperty/cluster.clusterset.k8s.io", "-ojsonpath={.spec.value}"])
            .await?;
        assert_eq!(value, "north");

        // The API server records who writes an object only if it has fields that somebody owns.
        for (labels, named) in
            [(r#", "labels": {"team": "a"}"#, "lighthouse-agent"), ("", "somebody unnamed")]
        {
            let theirs = format!(
                r#"{{"apiVersion": "multicluster.x-k8s.io/v1beta1", "kind": "ServiceExport",
                "metadata": {{"name": "web", "namespace": "shop"{labels}}}}}"#
            );
            bench.plane.apply(&theirs).await?;
            let status = r#"{"status": {"conditions": [{"type": "Valid", "status": "True", "reason": "Valid",
                "message": "", "lastTransitionTime": "2026-01-02T03:04:05Z"}]}}"#;
            let mut words =
                ["patch", "serviceexport/web", "--namespace=shop", "--subresource=status"].to_vec();
            words.extend(["--type=merge", "--field-manager=lighthouse-agent", "--patch", status]);
            bench.plane.kubectl(&words).await?;
            says(&format!("{named} writes the status of ServiceExport shop/web")).await?;
            bench.plane.kubectl(&["delete", "serviceexport/web", "--namespace=shop"]).await?;
        }
        assert!(bench.versions().await?.is_empty());

        bench.plane.kubectl(&["delete", "clusterproperty/cluster.clusterset.k8s.io"]).await?;
        bench.ready("web").await?;

        // What changes while it writes is seen too, and what goes is made again.
        let get = ["get", "clusterproperty/clusterset.k8s.io", "--output=jsonpath={.spec.value}"];
        let ours = bench.plane.kubectl(&get).await?;
        let patch = r#"{"spec": {"value": "another"}}"#;
        let words = ["patch", "clusterproperty/clusterset.k8s.io", "--type=merge", "--patch", patch];
        bench.plane.kubectl(&words).await?;
        says("ClusterProperty clusterset.k8s.io says \"another\"").await?;
        bench.plane.kubectl(&["delete", "clusterproperty/clusterset.k8s.io"]).await?;
        until_true("the property is made again", PATIENCE, async || {
            Ok(bench.plane.kubectl(&get).await? == ours)
        })
        .await?;
        Ok(())
    });
}

#[test]
fn an_older_crd_gets_what_it_declares() {
    with_plane("an_older_crd_gets_what_it_declares", async |lab| {
        let mut bench = Bench::new(lab, 16).await?;
        bench.stop().await?;
        let properties = "schema/openAPIV3Schema/properties";
        let without = |version: u8| {
            let remove = |field: &str| {
                format!(r#"{{"op": "remove", "path": "/spec/versions/{version}/{properties}/{field}"}}"#)
            };
            let status = remove("status/properties/endpointSliceObjects");
            [status, remove("spec/properties/trafficDistribution")].join(",")
        };
        let patch = format!("[{},{}]", without(0), without(1));
        let crd = "serviceimports.multicluster.x-k8s.io";
        bench.plane.kubectl(&["patch", "crd", crd, "--type=json", "--patch", &patch]).await?;
        until_true("the API server describes the older CRD", PATIENCE, async || {
            let document = ["get", "--raw", "/openapi/v3/apis/multicluster.x-k8s.io/v1beta1"];
            Ok(!bench.plane.kubectl(&document).await?.contains("endpointSliceObjects"))
        })
        .await?;
        bench.start().await?;
        bench.imports(&[import("web", &["10.2.0.1"])]);
        let found = bench.ready("web").await?;
        assert_eq!(found["status"]["endpointSliceObjects"], Value::Null);
        assert_eq!(found["spec"]["trafficDistribution"], Value::Null);
        assert_eq!(found["spec"]["sessionAffinity"], "ClientIP");
        Ok(())
    });
}
