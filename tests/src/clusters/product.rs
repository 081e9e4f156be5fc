//! Sealane in the clusters, as its documentation tells people to install it: by the charts of this checkout, with an
//! image of this build's binary, in a namespace that enforces the Pod Security standard `restricted`.
//!
//! The federation is in the first cluster. Its servers are dialled at ports of that cluster's node, which pods of every
//! cluster reach, whatever their network.

mod pods;
mod rollout;
mod upgrade;
mod values;

use super::command::{QUICK, run};
use super::layout::Plan;
use super::{Environment, space};
use crate::charts::packages::Packages;
use crate::charts::{self, NAMESPACE};
use crate::oci::product as image;
use crate::{binary, tools};
use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use serde_json::{Value, json};
use std::io::{Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::NamedTempFile;

/// How long an answer of Helm may take; an uninstall waits for a Job.
const HELM: Duration = Duration::from_secs(360);

/// The charts' releases bear their names.
const CRDS: &str = "sealane-crds";
const FEDERATION: &str = "sealane-federation";
const CLUSTER: &str = "sealane-cluster";

/// Sealane as it is to be installed.
#[derive(Debug, Clone)]
pub struct Product {
    /// The binary in the image.
    pub binary: PathBuf,
    /// How many federation servers: 1, 3 or 5.
    pub servers: u8,
    /// More values, by chart; the last wins.
    pub values: Vec<(String, PathBuf)>,
    /// The packed charts, whose version is the image's tag too; none for the charts of this checkout as they lie there.
    pub packages: Option<Packages>,
}

impl Product {
    /// One server, default values, and the binary of `SEALANE_BIN` or of this build, which is built where it is missing
    /// or old.
    ///
    /// # Errors
    /// When it can not be built.
    pub async fn of_this_build() -> Result<Self> {
        let binary = tokio::task::spawn_blocking(binary::path).await.context("nobody waited")??;
        Ok(Product { binary, servers: 1, values: Vec::new(), packages: None })
    }

    /// Its version.
    #[must_use]
    pub fn version(&self) -> &str {
        self.packages.as_ref().map_or(env!("CARGO_PKG_VERSION"), Packages::version)
    }

    /// What Helm installs a chart from.
    fn chart(&self, chart: &str) -> String {
        let path = self.packages.as_ref().map_or_else(|| charts::path(chart), |packed| packed.path(chart));
        path.display().to_string()
    }

    /// The archive of its image, which is removed with what is returned.
    ///
    /// # Errors
    /// When the binary can not be packed.
    pub async fn image(&self) -> Result<NamedTempFile> {
        let (binary, name) = (self.binary.clone(), image::name(self.version()));
        let pack = move || -> Result<NamedTempFile> {
            let file = NamedTempFile::new().context("no temporary file")?;
            image::image(&binary, vec![name])?.write(file.path())?;
            Ok(file)
        };
        tokio::task::spawn_blocking(pack).await.context("nobody waited")?
    }

    /// The values files of a chart, in the order in which Helm reads them.
    fn files<'a>(&'a self, chart: &'a str) -> impl Iterator<Item = &'a Path> {
        self.values.iter().filter(move |(of, _)| of == chart).map(|(_, file)| file.as_path())
    }
}

/// The CRDs, in a cluster whose API server runs and whose DNS does not yet: CoreDNS looks for them when it starts.
pub(super) async fn crds(hub: &Path, kubeconfig: &Path, product: &Product) -> Result<()> {
    let config = kubeconfig.display().to_string();
    let namespace = json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
    });
    let file = NamedTempFile::new().context("no temporary file")?;
    std::fs::write(file.path(), namespace.to_string()).context("can not write the namespace")?;
    let path = file.path().display().to_string();
    let words = ["--kubeconfig", &config, "apply", "--server-side", "--filename", &path];
    run(&mut space::inside(hub, tools::KUBECTL.ready().await?, &words), QUICK).await?;
    let chart = product.chart(CRDS);
    let words = ["--kubeconfig", &config, "install", CRDS, &chart, "--namespace", NAMESPACE];
    let mut helm = space::inside(hub, tools::HELM.ready().await?, &words);
    for file in product.files(CRDS) {
        helm.arg("--values").arg(file);
    }
    run(&mut helm, HELM).await.map(drop)
}

impl Environment {
    /// Installs the federation in the first cluster and lets every cluster join it, until all is ready.
    ///
    /// # Errors
    /// When a part does not become ready; with the pods, their events and their logs.
    pub async fn install(&self, product: &Product) -> Result<()> {
        let first = self.plans().next().context("no clusters")?.clone();
        self.found(&first.name, product).await?;
        try_join_all(self.plans().map(|plan| self.join(&first.name, plan, product))).await?;
        Ok(())
    }

    /// Installs the federation in a cluster, until its servers are ready.
    ///
    /// # Errors
    /// When they do not become so.
    pub async fn found(&self, cluster: &str, product: &Product) -> Result<()> {
        let plan = &self.cluster(cluster)?.plan;
        let values = values::federation(plan, product.servers);
        self.release("install", plan, FEDERATION, &values, product).await?;
        self.say(cluster, "the federation is installed, its servers start");
        self.rolled_out(cluster, "statefulset/sealane-federation").await?;
        self.say(cluster, "the federation is founded");
        Ok(())
    }

    /// Lets a cluster join the federation of another, or of its own, until its agents are ready.
    ///
    /// # Errors
    /// When they do not become so.
    pub async fn join(&self, federation: &str, plan: &Plan, product: &Product) -> Result<()> {
        let cluster = &plan.name;
        self.invite(federation, cluster).await?;
        self.release("install", plan, CLUSTER, &values::cluster(plan), product).await?;
        self.say(cluster, "the agent is installed, it joins");
        self.rolled_out(cluster, "statefulset/sealane-agent").await?;
        self.say(cluster, "the agent is ready");
        Ok(())
    }

    /// Makes a join token at the federation, and hands it over to a cluster as the Secret that its agent reads.
    ///
    /// # Errors
    /// When the federation gives none, or the cluster has one.
    pub async fn invite(&self, federation: &str, cluster: &str) -> Result<()> {
        let token = self.sealane(federation, &["token", "create", "--cluster", cluster]).await?;
        self.secret(cluster, "sealane-join-token", &token).await
    }

    /// Makes a Secret with a token, as people do: from a file.
    ///
    /// # Errors
    /// When there is one of that name.
    pub async fn secret(&self, cluster: &str, name: &str, token: &str) -> Result<()> {
        let file = self.place.cluster(cluster).join(name);
        write_secret(&file, token)?;
        let from = format!("--from-file=token={}", file.display());
        let words = ["--namespace", NAMESPACE, "create", "secret", "generic", name, from.as_str()];
        let created = self.kubectl(cluster, &words).await;
        std::fs::remove_file(&file).context("the token is still there")?;
        created.map(drop)
    }

    /// What `sealane` says to these arguments, run where the federation's administrator is: in its first server.
    ///
    /// # Errors
    /// When it fails.
    pub async fn sealane(&self, cluster: &str, arguments: &[&str]) -> Result<String> {
        let exec =
            ["--namespace", NAMESPACE, "exec", "sealane-federation-0", "-c", "server", "--", "/sealane"];
        let words: Vec<&str> = exec.iter().chain(arguments).copied().collect();
        self.kubectl(cluster, &words).await
    }

    /// The same, with a text on its standard input.
    ///
    /// # Errors
    /// When it fails.
    pub async fn sealane_reading(&self, cluster: &str, arguments: &[&str], input: &str) -> Result<String> {
        let mut file = tempfile::tempfile().context("no temporary file")?;
        file.write_all(input.as_bytes()).and_then(|()| file.rewind()).context("can not keep the input")?;
        let exec = ["exec", "--stdin", "sealane-federation-0", "-c", "server", "--", "/sealane"];
        let mut command = self.command("kubectl")?;
        command.args(["--context", cluster, "--namespace", NAMESPACE]).args(exec).args(arguments).stdin(file);
        run(&mut command.into(), HELM).await
    }

    /// What Helm says to these arguments, in the context of a cluster.
    ///
    /// # Errors
    /// When it refuses.
    pub async fn helm(&self, cluster: &str, arguments: &[&str]) -> Result<String> {
        tools::HELM.ready().await?;
        let mut command = self.command("helm")?;
        command.args(["--kube-context", cluster, "--namespace", NAMESPACE]).args(arguments);
        command.stdin(std::process::Stdio::null());
        run(&mut command.into(), HELM).await
    }

    /// Installs or upgrades the release of a chart: with these values, and then those of the product's files.
    async fn release(
        &self,
        verb: &str,
        plan: &Plan,
        chart: &str,
        values: &Value,
        product: &Product,
    ) -> Result<()> {
        let own = self.place.cluster(&plan.name).join(format!("{chart}.json"));
        std::fs::write(&own, format!("{values:#}")).context("can not write the values")?;
        let mut words = vec![verb.to_owned(), chart.to_owned(), product.chart(chart)];
        for file in std::iter::once(own.as_path()).chain(product.files(chart)) {
            words.extend(["--values".to_owned(), file.display().to_string()]);
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.helm(&plan.name, &words).await.map(drop)
    }

    fn say(&self, cluster: &str, what: &str) {
        self.progress.say(&format!("{cluster}: {what}"));
    }
}

/// A file that only its owner reads.
fn write_secret(path: &Path, text: &str) -> Result<()> {
    use std::io::Write;
    ensure!(!text.trim().is_empty(), "there is no token");
    let file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).context("can not keep the token")
}
