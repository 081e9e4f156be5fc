//! Bare watches: when an object came to be what is waited for.

use super::services::{mcs, slices};
use crate::listener::PROBE;
use anyhow::{Context, Result, bail, ensure};
use futures::StreamExt;
use kube::Client;
use kube::runtime::watcher::{self, Event, watcher};
use std::pin::pin;
use std::time::Instant;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// What a watch told: of which, how many endpoints it has, and when it came.
type Told = (String, usize, Instant);

/// A watch that goes on until it is dropped.
pub(super) struct Arrivals {
    told: mpsc::UnboundedReceiver<Told>,
    _task: JoinSet<()>,
}

impl Arrivals {
    /// The slices of the measured Service, by the label that names it.
    pub(super) fn of_probe(client: &Client, label: &str) -> Self {
        let (sender, told) = mpsc::unbounded_channel();
        let config = watcher::Config::default().labels(&format!("{label}={PROBE}"));
        let stream = watcher(slices(client), config);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut stream = pin!(stream);
            while let Some(event) = stream.next().await {
                let now = Instant::now();
                match event {
                    Ok(Event::Apply(slice) | Event::InitApply(slice)) => {
                        let count = slice.endpoints.map_or(0, |e| e.len());
                        // Who listened may be done.
                        let _ = sender.send((PROBE.to_owned(), count, now));
                    }
                    Ok(Event::Delete(_)) => drop(sender.send((PROBE.to_owned(), 0, now))),
                    _ => {}
                }
            }
        });
        Arrivals { told, _task: task }
    }

    /// The ServiceImports of a cluster.
    pub(super) fn of_imports(client: &Client) -> Self {
        let (sender, told) = mpsc::unbounded_channel();
        let stream = watcher(mcs(client, "ServiceImport", "serviceimports"), watcher::Config::default());
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut stream = pin!(stream);
            while let Some(event) = stream.next().await {
                let now = Instant::now();
                if let Ok(Event::Apply(import) | Event::InitApply(import)) = event {
                    let _ = sender.send((import.metadata.name.unwrap_or_default(), 0, now));
                }
            }
        });
        Arrivals { told, _task: task }
    }

    /// What came so far is of no interest.
    pub(super) fn forget(&mut self) {
        while self.told.try_recv().is_ok() {}
    }

    /// How many endpoints the measured Service had, one number for each change that was not forgotten and came by now.
    pub(super) fn so_far(&mut self) -> Vec<usize> {
        std::iter::from_fn(|| self.told.try_recv().ok()).map(|(_, count, _)| count).collect()
    }

    /// When the measured Service first had so many endpoints, of what was not forgotten.
    ///
    /// # Errors
    /// When they were taken away before.
    pub(super) async fn endpoints(&mut self, wanted: usize) -> Result<Instant> {
        loop {
            let (_, count, at) = self.told.recv().await.context("a bare watch ended")?;
            ensure!(count > 0, "all endpoints were withdrawn");
            if count == wanted {
                return Ok(at);
            }
        }
    }

    /// When an object of this name was first seen.
    pub(super) async fn named(&mut self, wanted: &str) -> Result<Instant> {
        while let Some((name, _, at)) = self.told.recv().await {
            if name == wanted {
                return Ok(at);
            }
        }
        bail!("a bare watch ended")
    }
}
