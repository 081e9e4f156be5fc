//! The founding of a federation in Kubernetes: `sealane kubernetes enter` before a real API server, with the rights that the
//! chart gives, and real servers on what it makes.

use anyhow::{Context, Result, ensure};
use sealane::client::StatusClient;
use sealane::context::Context as AdminContext;
use sealane::local::wait::until_true;
use sealane::local::{Lab, Process};
use sealane_tests::charts::{NAMESPACE, render};
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

        // Somebody put another federation's record there.
        let other = r#"--patch={"stringData":{"federation":"00000000000000000000000000000000"}}"#;
        plane.kubectl(&["--namespace", NAMESPACE, "patch", "secret/sealane-federation", other]).await?;
        let refused = pods.enter(2).await.err().context("a foreign record was taken")?;
        ensure!(format!("{refused:#}").contains("is of the federation"), "{refused:#}");
        Ok(())
    });
}
