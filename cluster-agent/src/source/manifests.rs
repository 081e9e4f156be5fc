//! A directory of Kubernetes YAML as the description of a cluster.
//!
//! A file is read when its writer closed it or renamed it into place, never while it is written; after lost
//! notifications, and once a minute, everything that changed on disk is read again. What can not be read or understood
//! is reported and takes nothing away: a missing directory is an error and not an empty cluster, and an object whose
//! document is bad stays as its file last said it well.

mod documents;
mod field;
mod files;
mod watch;

pub use files::Files;

use crate::source::{Failures, SourceEvent};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::mpsc;
use watch::{LOST, Noticed, Watch};

/// The largest file that is read.
pub const MAX_FILE: u64 = 1024 * 1024;
/// The most files that are read.
pub const MAX_FILES: usize = 10_000;
/// The most documents in one file.
pub const MAX_DOCUMENTS: usize = 1_024;

/// How often everything is looked over in case a notification was lost.
const RESCAN: Duration = Duration::from_secs(60);
/// How often it is made sure that the watched directory is still the one of that name: no notification tells that a
/// directory above it, or a link on the way, was exchanged.
const CHECK: Duration = Duration::from_secs(1);
/// How often an unreadable directory is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// Follows the directory until the receiver is gone.
pub async fn run(directory: PathBuf, events: mpsc::Sender<SourceEvent>) {
    let mut files = Files::new(directory.clone());
    let mut ready = false;
    let mut told = None;
    loop {
        let watch = Watch::begin(&directory).map_err(|e| e.to_string());
        let watched = match watch {
            Ok(watch) => {
                let followed = follow(&mut files, watch, &events, &mut ready).await;
                told = None;
                followed
            }
            Err(reason) => Err(reason),
        };
        let Err(reason) = watched else { return };
        // Once, and again when the reason is another one.
        if told.as_ref() != Some(&reason) {
            tracing::warn!(directory = %directory.display(), reason, "manifest directory unavailable, last state kept");
            told = Some(reason.clone());
        }
        if events.send(SourceEvent::Unavailable([("manifests", reason)].into())).await.is_err() {
            return;
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Reads everything, then what changes; returns when the receiver is gone, fails when the directory is.
async fn follow(
    files: &mut Files,
    mut watch: Watch,
    events: &mpsc::Sender<SourceEvent>,
    ready: &mut bool,
) -> Result<(), String> {
    files.scan()?;
    let mut begun = vec![SourceEvent::Unavailable(Failures::new())];
    begun.extend(files.take_events());
    if !*ready {
        begun.push(SourceEvent::Ready);
        *ready = true;
    }
    for event in begun {
        if events.send(event).await.is_err() {
            return Ok(());
        }
    }
    let mut check = tokio::time::interval_at(tokio::time::Instant::now() + CHECK, CHECK);
    let mut rescan = tokio::time::interval_at(tokio::time::Instant::now() + RESCAN, RESCAN);
    loop {
        let noticed = tokio::select! {
            noticed = watch.next() => noticed,
            _ = check.tick() => match watch.holds() {
                true => continue,
                false => Noticed::Lost(LOST.to_owned()),
            },
            _ = rescan.tick() => Noticed::Everything,
            () = events.closed() => return Ok(()),
        };
        match noticed {
            Noticed::Paths(paths) => read_all(files, &paths),
            Noticed::Everything => files.scan()?,
            Noticed::Lost(reason) => return Err(reason),
        }
        for event in files.take_events() {
            if events.send(event).await.is_err() {
                return Ok(());
            }
        }
    }
}

fn read_all(files: &mut Files, paths: &BTreeSet<PathBuf>) {
    for path in paths {
        files.read(path);
    }
}

#[cfg(test)]
mod tests;
