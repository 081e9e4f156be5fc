//! Every values file of the charts, installed until all is ready, in a namespace that enforces `restricted`.

use anyhow::{Result, ensure};
use sealane_tests::charts::golden::Golden;
use sealane_tests::charts::{NAMESPACE, path};
use sealane_tests::clusters::Environment;
use std::collections::BTreeSet;

const FEDERATION: &str = "sealane-federation";
const CLUSTER: &str = "sealane-cluster";
const AGENT: &str = "statefulset/sealane-agent";
const SERVERS: &str = "statefulset/sealane-federation";
/// Where a values file wants a machine for each pod: here is one for all. A rule about a label that no node has is met.
const ONE_MACHINE: &str = "affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey=sealane.test/none";

/// A release that is to be installed.
#[derive(Debug, Clone, Copy)]
struct Release {
    chart: &'static str,
    variant: Option<&'static str>,
}

const fn of(chart: &'static str, variant: Option<&'static str>) -> Release {
    Release { chart, variant }
}

/// In `east`, in this order; each but the first of a chart is an upgrade.
const SERVERS_EAST: Release = of(FEDERATION, None);
const PLAIN: Release = of(CLUSTER, None);
const GATEWAY: Release = of(CLUSTER, Some("values-gateway"));
const TWO_AGENTS: Release = of(CLUSTER, Some("values-ha"));
/// In `west`, in this order.
const SINGLE: Release = of(FEDERATION, Some("values-single"));
const EPHEMERAL: Release = of(CLUSTER, Some("values-ephemeral"));
/// In `west` as well, with the values that the federation prints.
const SERVICE_ACCOUNT: Release = of(CLUSTER, Some("values-serviceaccount"));
const FIVE_SERVERS: Release = of(FEDERATION, Some("values-ha"));

/// Installs all of them, and uninstalls them.
pub(crate) async fn every_file(environment: &Environment) -> Result<()> {
    let releases =
        [SERVERS_EAST, PLAIN, GATEWAY, TWO_AGENTS, SINGLE, EPHEMERAL, SERVICE_ACCOUNT, FIVE_SERVERS];
    let tried: BTreeSet<(&str, Option<String>)> =
        releases.iter().map(|r| (r.chart, r.variant.map(str::to_owned))).collect();
    // The CRDs have one file, and are there.
    let all: BTreeSet<_> =
        Golden::all()?.into_iter().map(|g| (g.chart, g.variant)).filter(|g| g.0 != "sealane-crds").collect();
    ensure!(tried == all, "not every values file is installed: {tried:?}, {all:?}");
    tokio::try_join!(east(environment), west(environment)).map(drop)
}

async fn east(environment: &Environment) -> Result<()> {
    let at = Site { environment, cluster: "east" };
    at.helm("install", SERVERS_EAST, &[]).await?;
    environment.rolled_out("east", SERVERS).await?;
    environment.invite("east", "east").await?;
    at.helm("install", PLAIN, &[]).await?;
    environment.rolled_out("east", AGENT).await?;
    let token = ["workload-token", "--dir", "/var/lib/sealane", "--gateway", "--out", "-"];
    let exec = ["exec", "sealane-agent-0", "--namespace", NAMESPACE, "--", "/sealane", "agent"];
    let words: Vec<&str> = exec.iter().chain(&token).copied().collect();
    let token = environment.kubectl("east", &words).await?;
    environment.secret("east", "sealane-gateway-token", &token).await?;
    at.helm("upgrade", GATEWAY, &["cluster.gatewayAddresses={10.87.0.11:31443}"]).await?;
    environment.rolled_out("east", AGENT).await?;
    environment.rolled_out("east", "statefulset/sealane-gateway").await?;
    at.helm("upgrade", TWO_AGENTS, &[&format!("agent.{ONE_MACHINE}")]).await?;
    environment.rolled_out("east", AGENT).await?;
    at.uninstall(&[CLUSTER, FEDERATION]).await
}

async fn west(environment: &Environment) -> Result<()> {
    let at = Site { environment, cluster: "west" };
    let node = "10.87.0.12";
    let dialled = [
        &*format!("servers.addresses[0].grpc={node}:30443"),
        &*format!("servers.addresses[0].status={node}:30444"),
    ];
    at.helm("install", SINGLE, &dialled).await?;
    environment.rolled_out("west", SERVERS).await?;
    environment.invite("west", "west").await?;
    at.helm("install", EPHEMERAL, &[]).await?;
    environment.rolled_out("west", AGENT).await?;
    at.uninstall(&[CLUSTER]).await?;
    at.without_a_secret().await?;
    at.uninstall(&[CLUSTER, FEDERATION]).await?;
    at.helm("install", FIVE_SERVERS, &[&format!("servers.{ONE_MACHINE}")]).await?;
    environment.rolled_out("west", SERVERS).await?;
    at.uninstall(&[FEDERATION]).await
}

/// A cluster with Sealane.
#[derive(Clone, Copy)]
pub(crate) struct Site<'a> {
    pub(crate) environment: &'a Environment,
    pub(crate) cluster: &'a str,
}

impl Site<'_> {
    async fn helm(self, verb: &str, release: Release, set: &[&str]) -> Result<()> {
        let chart = path(release.chart);
        let directory = chart.display().to_string();
        let mut words = vec![verb.to_owned(), release.chart.to_owned(), directory];
        if let Some(variant) = release.variant {
            words.push(format!("--values={}", chart.join(variant).with_extension("yaml").display()));
        }
        words.extend(set.iter().map(|value| format!("--set={value}")));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.environment.helm(self.cluster, &words).await.map(drop)
    }

    /// The cluster leaves, and joins again by tokens that the kubelet projects.
    async fn without_a_secret(self) -> Result<()> {
        let Site { environment, cluster } = self;
        environment.sealane(cluster, &["cluster", "remove", cluster]).await?;
        let jwks = environment.kubectl(cluster, &["get", "--raw", "/openid/v1/jwks"]).await?;
        let add = ["cluster", "add", cluster, "--jwks", "-"];
        let printed = environment.sealane_reading(cluster, &add, &jwks).await?;
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), printed)?;
        let chart = path(CLUSTER);
        let example = chart.join("values-serviceaccount.yaml");
        let values = [example.as_path(), file.path()].map(|file| format!("--values={}", file.display()));
        let directory = chart.display().to_string();
        environment.helm(cluster, &["install", CLUSTER, &directory, &values[0], &values[1]]).await?;
        environment.rolled_out(cluster, AGENT).await
    }

    /// Uninstalls releases as docs/kubernetes.md says, and deletes what it says to be kept, that of people too.
    pub(crate) async fn uninstall(self, releases: &[&str]) -> Result<()> {
        for release in releases {
            self.environment.helm(self.cluster, &["uninstall", release]).await?;
        }
        if releases.contains(&CLUSTER) {
            self.delete(&["secrets/sealane-join-token", "secrets/sealane-gateway-token"]).await?;
        }
        if releases.contains(&FEDERATION) {
            self.delete(&["secrets/sealane-federation"]).await?;
            self.delete(&["pvc", "--selector=app.kubernetes.io/component=federation"]).await?;
        }
        Ok(())
    }

    async fn delete(self, what: &[&str]) -> Result<()> {
        let delete = ["delete", "--namespace", NAMESPACE, "--ignore-not-found"];
        let words: Vec<&str> = delete.iter().chain(what).copied().collect();
        self.environment.kubectl(self.cluster, &words).await.map(drop)
    }
}
