//! Requests between clusters: by whom they are answered, on what path, and who can read them.

use anyhow::{Result, ensure};
use sealane::demo::console::Console;
use sealane::demo::{crossing, enrolment, failover, networks, unexport};
use sealane::local::wait;
use sealane::local::{Lab, SiteSpec, inspect};
use sealane_tests::{Pair, call, in_lab};
use std::time::Duration;

#[test]
fn the_steps_of_traffic() {
    in_lab(async |lab| {
        let console = &mut Console::silent();
        let world = &mut enrolment::enrol(lab, console).await?;
        crossing::export_becomes_callable(world, console).await?;
        crossing::both_identities(world, console).await?;
        crossing::ciphertext_only(world, console).await?;
        networks::direct_and_overlapping(world, console).await?;
        failover::local_first(world, console).await?;
        unexport::refused(world, console).await
    });
}

#[test]
fn east_imports_from_west_that_imports_nothing() {
    in_lab(async |lab| {
        let mut west = SiteSpec::new("west", 3);
        west.grants = ["--imports", "nothing-at-all"].map(str::to_owned).to_vec();
        let mut pair = Pair::with(lab, 1, SiteSpec::new("east", 1), west).await?;
        pair.east.serve("shop", "cart", 80)?;
        pair.east.export("shop", "cart")?;
        exported(&pair, "cart").await?;
        let explained = pair.federation.client()?.explain("shop/cart", "west").await?;
        ensure!(!explained.imported && explained.not_imported.is_some(), "west imports: {explained:?}");
        let imports = std::fs::read_dir(pair.west.out().join("serviceimports")).map_or(0, Iterator::count);
        ensure!(imports == 0, "{imports} imports were written in west");
        for _ in 0..20 {
            ensure!(call(&pair.east, "echo").await?.name == "west/echo-1");
        }
        ensure!(pair.west.ended().is_empty());
        Ok(())
    });
}

/// Who asks about a service that a grant does not let a cluster export is told so, wherever they ask from.
#[test]
fn a_refused_export_is_explained() {
    in_lab(async |lab| {
        let mut west = SiteSpec::new("west", 3);
        west.grants = ["--exports", "shop"].map(str::to_owned).to_vec();
        let pair = Pair::with(lab, 1, SiteSpec::new("east", 1), west).await?;
        pair.west.serve("bank", "vault", 80)?;
        pair.west.export("bank", "vault")?;
        let client = pair.federation.client()?;
        wait::until_true("the refusal is explained", sealane_tests::PATIENCE, async || {
            let troubles = client.explain("bank/vault", "east").await?.troubles;
            let why =
                "the federation refuses the export: the export grant \"shop\" of cluster west does not cover";
            Ok(troubles.len() == 1 && troubles[0].cluster == "west" && troubles[0].message.starts_with(why))
        })
        .await?;
        pair.west.unexport("bank", "vault")?;
        wait::until_true("it is over", sealane_tests::PATIENCE, async || {
            Ok(client.explain("bank/vault", "east").await?.troubles.is_empty())
        })
        .await?;
        Ok(())
    });
}

async fn exported(pair: &Pair, service: &str) -> Result<()> {
    wait::until_true("the export is acknowledged", sealane_tests::PATIENCE, async || {
        inspect::is_exported(&pair.east.out(), "shop", service)
    })
    .await?;
    Ok(())
}

/// Killing an application kills its process and no other; what it answered is answered by nobody else.
#[test]
fn an_application_dies_alone() {
    in_lab(async |lab: &Lab| {
        let mut pair = Pair::new(lab, 1).await?;
        pair.west.pod_mut("echo-1")?.kill_app()?;
        wait::until_true("east's call fails", Duration::from_secs(10), async || {
            Ok(call(&pair.east, "echo").await.is_err())
        })
        .await?;
        ensure!(pair.west.ended().is_empty(), "{:?}", pair.west.ended());
        ensure!(pair.east.ended().is_empty(), "{:?}", pair.east.ended());
        pair.west.pod_mut("echo-1")?.start_app().await?;
        pair.answered("west/echo-1").await?;
        Ok(())
    });
}
