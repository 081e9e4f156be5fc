//! `sealane demo` as a user runs it, and what is left of it however it ends.

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use sealane::local::{Launcher, Process, wait};
use sealane_tests::{PATIENCE, alone, binary};
use std::path::Path;
use std::time::{Duration, Instant};

/// Processes whose command line or environment names a directory.
fn processes_of(directory: &Path) -> Vec<String> {
    let needle = directory.to_string_lossy().into_owned();
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let lines = entries.flatten().filter_map(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let of_us = line.contains(&needle) && !line.contains(" demo ");
        of_us.then_some(line)
    });
    lines.collect()
}

fn left_in(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap().flatten();
    entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect()
}

fn start(logs: &Path, dir: &Path) -> Result<Process> {
    let launcher = Launcher::new(binary::path()?, logs.to_owned(), "warn");
    launcher.start("demo", &["demo", "--dir", &dir.to_string_lossy()])
}

async fn enrolled(demo: &Process) -> Result<()> {
    wait::until_true("the demo has enrolled its clusters", PATIENCE, async || {
        Ok(demo.said().contains("each with an agent"))
    })
    .await?;
    Ok(())
}

#[test]
fn the_demo_proves_what_it_claims_and_leaves_nothing() {
    alone(async || {
        let (logs, dir) = (tempfile::tempdir()?, tempfile::tempdir()?);
        let mut demo = start(logs.path(), dir.path())?;
        let start = Instant::now();
        let status = loop {
            if let Some(status) = demo.ended() {
                break status;
            }
            assert!(start.elapsed() < Duration::from_secs(180), "the demo does not end:\n{}", demo.said());
            tokio::time::sleep(wait::INTERVAL).await;
        };
        let said = demo.said();
        assert!(status.success(), "{status}:\n{said}");
        assert!(said.contains("Every claim above was verified."), "{said}");
        assert_eq!(left_in(dir.path()), Vec::<String>::new());
        assert_eq!(processes_of(dir.path()), Vec::<String>::new());
        println!("{said}");
        Ok(())
    });
}

#[test]
fn a_demo_that_is_interrupted_leaves_nothing() {
    alone(async || {
        let (logs, dir) = (tempfile::tempdir()?, tempfile::tempdir()?);
        let demo = start(logs.path(), dir.path())?;
        enrolled(&demo).await?;
        assert!(processes_of(dir.path()).len() >= 9, "{:?}", processes_of(dir.path()));
        demo.signal(Signal::INT)?;
        let status = demo.terminate().await?;
        assert_eq!(status.code(), Some(130));
        assert_eq!(left_in(dir.path()), Vec::<String>::new());
        assert_eq!(processes_of(dir.path()), Vec::<String>::new());
        Ok(())
    });
}

#[test]
fn a_demo_that_is_killed_leaves_nothing() {
    alone(async || {
        let (logs, dir) = (tempfile::tempdir()?, tempfile::tempdir()?);
        let demo = start(logs.path(), dir.path())?;
        enrolled(&demo).await?;
        demo.kill();
        gone(dir.path()).await?;
        assert_eq!(left_in(dir.path()), Vec::<String>::new());
        Ok(())
    });
}

async fn gone(dir: &Path) -> Result<()> {
    wait::until_true("no process is left", Duration::from_secs(10), async || {
        let left = processes_of(dir);
        ensure!(left.is_empty(), "{left:?}");
        Ok(true)
    })
    .await
    .context("after SIGKILL")?;
    Ok(())
}
