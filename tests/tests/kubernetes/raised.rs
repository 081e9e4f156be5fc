//! The way back ends where the federation's command version is raised: a server of the former version stops and says so,
//! whatever it finds on its disk, and the newer one goes on with that.

use anyhow::{Context, Result, ensure};
use sealane::local::{Federation, Launcher};
use sealane_tests::former;
use sealane_tests::in_lab;
use std::ffi::OsString;

#[test]
fn a_server_of_the_former_version_refuses_a_federation_whose_version_was_raised() {
    in_lab(async |lab| {
        let former = tokio::task::spawn_blocking(former::find).await??;
        if !former.differs() {
            eprintln!("this build would refuse nothing of its own");
            return Ok(());
        }
        let mut federation = Federation::found(lab, &[]).await?;
        federation.sealane(&["server", "raise-version"]).await?;
        let server = federation.servers[0].process.take().context("no server")?;
        ensure!(server.terminate().await?.success(), "it ended badly");

        let launcher = Launcher::new(former.binary.clone(), lab.launcher().logs().to_owned(), "info");
        refuses(&launcher, &federation, "the restart image has format 2").await?;
        // The image is derived, and may be lost: the log says the same.
        let image = federation.servers[0].directory.join("store/state");
        std::fs::rename(&image, image.with_extension("away"))?;
        refuses(&launcher, &federation, "needs version 2, and this process understands up to 1").await?;

        federation.start(0).await?;
        federation.leader().await?;
        Ok(())
    });
}

/// A server of these binaries ends on the first server's disk, and says why.
async fn refuses(launcher: &Launcher, federation: &Federation, why: &str) -> Result<()> {
    let server = &federation.servers[0];
    let mut words: Vec<OsString> = ["federation", "run", "--dir"].map(OsString::from).into();
    words.push(server.directory.clone().into());
    words.extend([OsString::from("--metrics-listen"), server.metrics.to_string().into()]);
    let ended = launcher.output(&words).await?;
    let said = String::from_utf8_lossy(&ended.stderr);
    ensure!(!ended.status.success() && said.contains(why), "{}: {said}", ended.status);
    Ok(())
}
