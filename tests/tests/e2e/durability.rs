//! Power cuts and lost files: what was acknowledged is there, or the server does not start.

use crate::exports::{
    Exported, Stream, again, both_again, further, lost, nothing_is_lost, silence, silence_both, sites,
};
use anyhow::{Context, Result, ensure};
use sealane::local::{Federation, Lab, Site, SiteSpec};
use sealane_tests::in_lab;
use sealane_tests::power::{self, Lie, Loss, environment};
use sealane_tests::shim::in_lab_with;
use std::path::{Path, PathBuf};

/// Small, so that a short test sees snapshots, compaction and many segments.
const SMALL: [&str; 4] = ["--snapshot-entries", "20", "--segment-bytes", "4096"];

fn cut_all(federation: &mut Federation) -> Result<()> {
    federation.kill_all();
    federation.servers.iter().try_for_each(|s| power::cut(&s.directory))
}

/// Three servers whose power fails right after `init` and right after `join`, before they ever ran.
async fn three(lab: &Lab, library: &Path) -> Result<Federation> {
    let mut federation = Federation::init(lab, &SMALL, environment(library, Loss::All, None)).await?;
    power::cut(&federation.servers[0].directory).context("after init")?;
    federation.start(0).await?;
    federation.leader().await?;
    for _ in 1..3 {
        let at = federation.admit().await?;
        power::cut(&federation.servers[at].directory).context("after join")?;
        federation.start(at).await?;
    }
    federation.voting(3).await?;
    Ok(federation)
}

#[test]
fn power_cuts_of_one_and_of_all_servers_lose_nothing_that_was_acknowledged() {
    in_lab_with("power", "power_cuts_of_one_and_of_all_servers", async |lab, library| {
        let mut federation = three(lab, library).await?;
        let (east, west) = sites(&federation, lab).await?;
        let mut streams = [Stream::start(east, Vec::new()), Stream::start(west, Vec::new())];
        for loss in [Loss::All, Loss::Some(1), Loss::Some(2)] {
            further(&streams, 8).await?;
            let leader = federation.leader().await?;
            let exported = silence_both(streams).await?;
            federation.kill(leader);
            power::cut(&federation.servers[leader].directory)?;
            nothing_is_lost(&federation, &exported).await?;
            streams = both_again(exported)?;
            further(&streams, 2).await?;
            federation.start(leader).await?;
            federation.voting(3).await?;
            further(&streams, 2).await?;
            cut_all(&mut federation)?;
            let exported = silence_both(streams).await?;
            federation.environment = environment(library, loss, None);
            federation.start_all().await?;
            nothing_is_lost(&federation, &exported).await?;
            streams = both_again(exported)?;
        }
        further(&streams, 2).await?;
        Ok(())
    });
}

/// A server alone, and a cluster that exports.
struct Alone {
    federation: Federation,
    exported: Exported,
}

impl Alone {
    /// Made in one environment, run in another.
    async fn new(lab: &Lab, made: Vec<(String, String)>, run: Vec<(String, String)>) -> Result<Self> {
        let mut federation = Federation::init(lab, &SMALL, made).await?;
        federation.environment = run;
        federation.start(0).await?;
        federation.leader().await?;
        let site = Site::enrol(&federation, lab, SiteSpec::new("east", 1)).await?;
        Ok(Alone { federation, exported: (Vec::new(), site) })
    }

    /// Exports so many services more; then the server is killed, and the agent stopped.
    async fn export(mut self, count: usize) -> Result<Self> {
        let streams = [again(self.exported)?];
        further(&streams, count).await?;
        self.federation.kill(0);
        let [stream] = streams;
        self.exported = silence(stream).await?;
        Ok(self)
    }

    fn acknowledged(&self) -> &[String] {
        &self.exported.0
    }

    fn directory(&self) -> &Path {
        &self.federation.servers[0].directory
    }

    fn segments(&self) -> Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(self.directory().join("store/log"))?;
        let paths: Vec<PathBuf> = entries.map(|e| Ok(e?.path())).collect::<Result<_>>()?;
        let mut paths: Vec<PathBuf> =
            paths.into_iter().filter(|p| p.extension().is_some_and(|e| e == "wal")).collect();
        paths.sort();
        Ok(paths)
    }

    /// Starts the server: how many of the acknowledged exports it lost, or why it does not start.
    async fn restart(&mut self) -> Result<Result<usize, String>> {
        match self.federation.start(0).await {
            Ok(()) => Ok(Ok(lost(&self.federation, self.acknowledged()).await?.len())),
            Err(refusal) => Ok(Err(format!("{refusal:#}"))),
        }
    }

    /// Starts the server, which has everything; gives what it logged.
    async fn has_everything(&mut self) -> Result<String> {
        let found = self.restart().await?;
        ensure!(found == Ok(0), "of {} exports lost: {found:?}", self.acknowledged().len());
        Ok(self.federation.servers[0].process.as_ref().context("no process")?.said())
    }
}

/// The kernel may write what was not synced, in any order, or not at all.
#[test]
fn whatever_was_written_early_a_power_cut_loses_nothing_that_was_acknowledged() {
    in_lab_with("power", "whatever_was_written_early", async |lab, library| {
        let first = environment(library, Loss::Some(0), None);
        let mut alone = Alone::new(lab, first.clone(), first).await?;
        for seed in 1..=6 {
            alone = alone.export(7).await?;
            power::cut(alone.directory())?;
            alone.federation.environment = environment(library, Loss::Some(seed), None);
            alone.has_everything().await?;
        }
        println!("{} exports, none lost in 6 cuts", alone.acknowledged().len());
        Ok(())
    });
}

/// The same checks notice a disk that lies: they can fail.
#[test]
fn a_disk_that_lies_about_its_syncs_is_seen_to_lose_acknowledged_exports() {
    for lie in [Lie::Sync, Lie::Names] {
        in_lab_with("power", "a_disk_that_lies_about_its_syncs", async |lab, library| {
            let honest = environment(library, Loss::All, None);
            let liar = environment(library, Loss::All, Some(lie));
            let mut alone = Alone::new(lab, honest.clone(), liar).await?;
            // Enough for a segment whose name is not synced.
            alone = alone.export(20).await?;
            power::cut(alone.directory())?;
            alone.federation.environment = honest;
            let found = alone.restart().await?;
            println!("{lie:?}: of {} exports lost: {found:?}", alone.acknowledged().len());
            ensure!(found != Ok(0), "{lie:?}: the lie was not noticed");
            // Without syncs nothing of this run is there; without names a part of the log is not.
            ensure!(lie == Lie::Names || found == Ok(alone.acknowledged().len()), "{found:?}");
            Ok(())
        });
    }
}

/// The restart image, or the oldest segments of the log, are deleted: the state is made anew from a snapshot file. Where
/// no snapshot covers what is missing, the server does not start, and says what to do.
#[test]
fn without_its_restart_image_or_old_log_segments_a_server_starts_from_its_snapshot() {
    in_lab(async |lab| {
        let mut alone = Alone::new(lab, Vec::new(), Vec::new()).await?.export(50).await?;
        while alone.segments()?[0].ends_with("00000000000000000001.wal") {
            ensure!(alone.acknowledged().len() < 200, "nothing is cut off the log");
            alone.has_everything().await?;
            alone = alone.export(20).await?;
        }
        std::fs::remove_dir_all(alone.directory().join("store/state"))?;
        let said = alone.has_everything().await?;
        ensure!(said.contains("made the state anew from a snapshot"), "{said}");

        let (mut started, mut refused) = (0, 0);
        while started == 0 || refused == 0 {
            ensure!(started + refused < 12, "{started} started and {refused} refused: never the other");
            alone = alone.export(4).await?;
            let segments = alone.segments()?;
            // The only segment is no old one.
            if segments.len() < 2 {
                alone.has_everything().await?;
            } else if alone.goes_on_without(&segments[0]).await? {
                started += 1;
            } else {
                refused += 1;
            }
        }
        Ok(())
    });
}

impl Alone {
    /// Whether the server starts without its oldest segment, as it must if a snapshot covers that; if it refuses, the
    /// segment is put back. Everything is there in the end.
    async fn goes_on_without(&mut self, oldest: &Path) -> Result<bool> {
        let aside = self.directory().join("aside");
        std::fs::rename(oldest, &aside)?;
        match self.restart().await? {
            Ok(lost) => {
                let said = self.federation.servers[0].process.as_ref().context("no process")?.said();
                ensure!(
                    lost == 0 && said.contains("the oldest log segments are gone"),
                    "{lost} lost: {said}"
                );
                Ok(true)
            }
            Err(said) => {
                let why = "no whole snapshot covers what is between";
                ensure!(said.contains(why) && said.contains("recover --force-new-cluster"), "{said}");
                self.federation.kill(0);
                std::fs::rename(&aside, oldest)?;
                self.has_everything().await?;
                Ok(false)
            }
        }
    }
}
