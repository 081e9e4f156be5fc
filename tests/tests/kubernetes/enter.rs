//! The founding of a federation in Kubernetes: `sealane kubernetes enter` before a real API server, with the rights that the
//! chart gives, and real servers on what it makes.

use anyhow::{Context, Result, ensure};
use sealane::client::StatusClient;
use sealane::context::Context as AdminContext;
use sealane::local::wait::until_true;
use sealane::local::{Lab, Process};
use sealane_tests::charts::{NAMESPACE, helm, path, render};
use sealane_tests::control_plane::{ControlPlane, Shape};
use sealane_tests::{PATIENCE, in_lab, skip, tools};
use std::collections::BTreeSet;
use std::path::PathBuf;

const COUNT: usize = 3;
/// The network of the lab that the servers have their addresses in.
const NETWORK: u8 = 14;

/// Three pods, as far as a server can tell.
struct Pods<'a> {
    lab: &'a Lab,
    kubeconfig: String,
}

impl Pods<'_> {
    fn dir(&self, at: usize) -> PathBuf {
        self.lab.path().join(format!("pod-{at}/server"))
    }

    fn admin(&self, at: usize) -> PathBuf {
        self.lab.path().join(format!("pod-{at}/admin"))
    }

    async fn enter(&self, at: usize) -> Result<()> {
        let server = |i: usize| {
            let host = u8::try_from(i + 1).unwrap_or(u8::MAX);
            let socket = |port| self.lab.socket(NETWORK, host, port);
            format!("--server=sealane-federation-{i}={},{}", socket(7443), socket(7444))
        };
        let mut words = vec!["kubernetes".to_owned(), "enter".to_owned()];
        words.extend((0..COUNT).map(server));
        words.extend([
            format!("--dir={}", self.dir(at).display()),
            format!("--admin-out={}", self.admin(at).display()),
            format!("--pod=sealane-federation-{at}"),
            format!("--kubeconfig={}", self.kubeconfig),
            format!("--namespace={NAMESPACE}"),
            "--secret=sealane-federation".to_owned(),
        ]);
        self.lab.launcher().run(&words).await.map(drop)
    }

    fn run(&self, at: usize) -> Result<Process> {
        let dir = self.dir(at).display().to_string();
        self.lab.launcher().start(&format!("pod-{at}"), &["federation", "run", "--dir", &dir])
    }

    /// The ids of the voters, as one server tells them.
    async fn voters(&self, at: usize) -> Result<BTreeSet<u64>> {
        let client = StatusClient::new(AdminContext::load(&self.admin(at))?)?.consistent(true);
        let servers = client.servers().await?.servers;
        Ok(servers.iter().filter(|s| s.voter).map(|s| s.id).collect())
    }

    async fn voting(&self, at: usize, expected: &[u64]) -> Result<()> {
        let expected = expected.iter().copied().collect();
        let what = format!("the voters are {expected:?}");
        until_true(&what, PATIENCE, async || Ok(self.voters(at).await.is_ok_and(|v| v == expected))).await?;
        Ok(())
    }
}

#[test]
fn a_federation_is_founded_once_and_a_first_server_that_lost_its_disk_joins_it() {
    let needed = [&tools::ETCD, &tools::API_SERVER, &tools::KUBECTL, &tools::HELM];
    if let Some(reason) = tools::missing(&needed) {
        return skip("a_federation_is_founded_once_and_a_first_server_that_lost_its_disk_joins_it", &reason);
    }
    in_lab(async |lab| {
        let plane = ControlPlane::start(lab, Shape::new("home", 5)).await?;
        plane.kubectl(&["create", "namespace", NAMESPACE]).await?;
        plane.apply(&render("sealane-federation", None, &[])?).await?;
        let account = format!("system:serviceaccount:{NAMESPACE}:sealane-federation");
        let kubeconfig = plane.kubeconfig_of(&account, "")?.display().to_string();
        let pods = Pods { lab, kubeconfig };
        let recorded = async || {
            let id = "--output=jsonpath={.data.federation}";
            plane.kubectl(&["--namespace", NAMESPACE, "get", "secret/sealane-federation", id]).await
        };

        // The second comes before there is a federation, and waits for it.
        let founding = async {
            pods.enter(0).await?;
            pods.run(0)
        };
        let (first, ()) = tokio::try_join!(founding, pods.enter(1))?;
        let _second = pods.run(1)?;
        pods.enter(2).await?;
        let _third = pods.run(2)?;
        pods.voting(1, &[1, 2, 3]).await?;
        let federation = recorded().await?;
        ensure!(!federation.is_empty());

        let mark = "--output=jsonpath={.metadata.annotations}";
        let mark =
            plane.kubectl(&["--namespace", NAMESPACE, "get", "secret/sealane-federation", mark]).await?;
        ensure!(mark.contains("sealane.dev/federation") && !mark.contains("sealane.dev/unused"), "{mark}");

        // The pod is made anew: the disk is left as it is.
        let before = std::fs::read(pods.dir(1).join("server.json"))?;
        pods.enter(1).await?;
        ensure!(std::fs::read(pods.dir(1).join("server.json"))? == before);

        // The founder's volume is lost.
        drop(first);
        std::fs::remove_dir_all(pods.dir(0))?;
        pods.enter(0).await?;
        let _first = pods.run(0)?;
        pods.voting(1, &[2, 3, 4]).await?;
        ensure!(recorded().await? == federation, "another federation is recorded");

        // And again another's, whom the one who came back can admit, because it holds the root's key.
        drop(_second);
        std::fs::remove_dir_all(pods.dir(1))?;
        pods.enter(1).await?;
        let _second = pods.run(1)?;
        pods.voting(0, &[3, 4, 5]).await?;

        // The Secret loses its content, and the first server its disk: nothing is founded. One with its disk records again.
        let emptied = ["patch", "secret/sealane-federation", "--type=merge", r#"--patch={"data":null}"#];
        plane.kubectl(&[&["--namespace", NAMESPACE][..], &emptied].concat()).await?;
        drop(_first);
        std::fs::remove_dir_all(pods.dir(0))?;
        let refused = pods.enter(0).await.err().context("a second federation was founded")?;
        ensure!(format!("{refused:#}").contains("no second federation is founded"), "{refused:#}");
        ensure!(recorded().await?.is_empty() && !pods.dir(0).exists());
        pods.enter(2).await?;
        ensure!(recorded().await? == federation, "it was not recorded again");
        pods.enter(0).await?;
        let _first = pods.run(0)?;
        pods.voting(1, &[3, 5, 6]).await.context("the one that came back")?;

        // Somebody put another federation's record there.
        let other = r#"--patch={"stringData":{"federation":"00000000000000000000000000000000"}}"#;
        plane.kubectl(&["--namespace", NAMESPACE, "patch", "secret/sealane-federation", other]).await?;
        let refused = pods.enter(2).await.err().context("a foreign record was taken")?;
        ensure!(format!("{refused:#}").contains("one of them was changed"), "{refused:#}");
        let marked = "sealane.dev/federation=00000000000000000000000000000000";
        let mark = ["annotate", "--overwrite", "secret/sealane-federation", marked];
        plane.kubectl(&[&["--namespace", NAMESPACE][..], &mark].concat()).await?;
        let refused = pods.enter(2).await.err().context("a foreign record was taken")?;
        ensure!(format!("{refused:#}").contains("is of the federation"), "{refused:#}");
        Ok(())
    });
}

/// Only the Secret that an install makes may be founded upon, whatever becomes of the release.
#[test]
fn the_chart_says_of_no_secret_but_that_of_an_install_that_it_is_new() {
    let name = "the_chart_says_of_no_secret_but_that_of_an_install_that_it_is_new";
    if let Some(reason) = tools::missing(&[&tools::ETCD, &tools::API_SERVER, &tools::KUBECTL, &tools::HELM]) {
        return skip(name, &reason);
    }
    in_lab(async |lab| {
        let plane = ControlPlane::start(lab, Shape::new("home", 7)).await?;
        plane.kubectl(&["create", "namespace", NAMESPACE]).await?;
        let chart = path("sealane-federation").display().to_string();
        let kubeconfig = plane.kubeconfig().display().to_string();
        let release = |verb: &str, chart: &[&str]| {
            let more = ["--namespace", NAMESPACE, "--kubeconfig", &kubeconfig];
            helm(&[&[verb, "sealane-federation"], chart, &more].concat()).map(drop)
        };
        let upgrade = || release("upgrade", &[&chart]);
        let secret =
            async |words: &[&str]| plane.kubectl(&[&["--namespace", NAMESPACE], words].concat()).await;
        let new = async || {
            let query = r#"--output=jsonpath={.metadata.annotations.sealane\.dev/unused}"#;
            Ok::<_, anyhow::Error>(secret(&["get", "secret/sealane-federation", query]).await? == "true")
        };
        release("install", &[&chart])?;
        ensure!(new().await?, "after the install");
        upgrade()?;
        ensure!(new().await?, "after an upgrade before the founding");
        secret(&["annotate", "secret/sealane-federation", "sealane.dev/unused-"]).await?;
        secret(&["annotate", "secret/sealane-federation", "sealane.dev/federation=07"]).await?;
        upgrade()?;
        ensure!(!new().await?, "after an upgrade");
        release("rollback", &[])?;
        let kept = r#"--output=jsonpath={.metadata.annotations.sealane\.dev/federation}"#;
        let kept = secret(&["get", "secret/sealane-federation", kept]).await?;
        ensure!(kept == "07", "a rollback took away that it was used: {kept}");
        release("uninstall", &[])?;
        release("install", &[&chart])?;
        ensure!(!new().await?, "after an install that found it");
        secret(&["delete", "secret/sealane-federation"]).await?;
        upgrade()?;
        ensure!(!new().await?, "after an upgrade made it anew");
        Ok(())
    });
}
