//! Notifications of the operating system, reduced to the paths worth reading.

use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind, RemoveKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::mpsc;

/// How many notifications may wait; when they are more, everything is read again instead.
const NOTICES: usize = 1_024;

/// Why a watch ended.
pub(super) const LOST: &str = "the directory was removed, renamed or replaced";

/// What happened in the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Noticed {
    /// These files were finished or removed.
    Paths(BTreeSet<PathBuf>),
    /// Anything may have changed.
    Everything,
    /// The directory itself is gone.
    Lost(String),
}

/// A watch on one directory, until it is dropped.
pub(super) struct Watch {
    /// Absolute, as the notifications name it.
    directory: PathBuf,
    /// Which directory it was when the watch began.
    place: Place,
    notices: mpsc::Receiver<Event>,
    overflow: Arc<AtomicBool>,
    _watcher: RecommendedWatcher,
}

/// What tells a directory from another one of its name.
type Place = (u64, u64);

fn place(directory: &Path) -> io::Result<Place> {
    let metadata = std::fs::metadata(directory)?;
    if !metadata.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    Ok((metadata.dev(), metadata.ino()))
}

impl Watch {
    pub(super) fn begin(directory: &Path) -> notify::Result<Self> {
        let directory = std::path::absolute(directory)?;
        let place = place(&directory)?;
        let (sender, notices) = mpsc::channel(NOTICES);
        let overflow = Arc::new(AtomicBool::new(false));
        let lost = Arc::clone(&overflow);
        let mut watcher = notify::recommended_watcher(move |result: notify::Result<Event>| {
            let delivered = match result {
                Ok(event) if !worth(&event) => true,
                Ok(event) => !event.need_rescan() && sender.try_send(event).is_ok(),
                Err(_) => false,
            };
            if !delivered {
                lost.store(true, Ordering::SeqCst);
                // A full channel wakes the reader as well; then this one is not needed.
                let _ = sender.try_send(Event::new(EventKind::Other));
            }
        })?;
        watcher.watch(&directory, RecursiveMode::NonRecursive)?;
        let watch = Watch { directory, place, notices, overflow, _watcher: watcher };
        // Else it was exchanged just now, and nobody knows which one is watched.
        if watch.holds() {
            Ok(watch)
        } else {
            Err(io::Error::other("the directory was just replaced").into())
        }
    }

    /// Whether the watched directory is still the one of that name.
    pub(super) fn holds(&self) -> bool {
        place(&self.directory).is_ok_and(|place| place == self.place)
    }

    /// What happened since; waits until something did. Takes all that is there, so that one write of many files is
    /// one change.
    pub(super) async fn next(&mut self) -> Noticed {
        let Some(mut event) = self.notices.recv().await else {
            return Noticed::Lost("the watch on the directory ended".to_owned());
        };
        let mut paths = BTreeSet::new();
        let mut everything = false;
        loop {
            if self.is_end(&event) {
                return Noticed::Lost(LOST.to_owned());
            }
            // A volume of Kubernetes swaps the link `..data`: every file behind it changes at once.
            everything |= event.paths.iter().any(|p| name(p).starts_with(".."));
            paths.extend(event.paths);
            match self.notices.try_recv() {
                Ok(next) => event = next,
                Err(_) => break,
            }
        }
        everything |= self.overflow.swap(false, Ordering::SeqCst);
        if everything { Noticed::Everything } else { Noticed::Paths(paths) }
    }

    fn is_end(&self, event: &Event) -> bool {
        let of_directory = event.paths.contains(&self.directory);
        let gone = matches!(event.kind, EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)));
        of_directory && gone && !self.holds()
    }
}

fn name(path: &Path) -> std::borrow::Cow<'_, str> {
    path.file_name().map(|n| n.to_string_lossy()).unwrap_or_default()
}

/// Writes that go on are not worth a look: the close that ends them is.
fn worth(event: &Event) -> bool {
    event.need_rescan()
        || matches!(
            event.kind,
            EventKind::Access(AccessKind::Close(AccessMode::Write))
                | EventKind::Modify(ModifyKind::Name(_) | ModifyKind::Metadata(_))
                | EventKind::Remove(
                    RemoveKind::File | RemoveKind::Any | RemoveKind::Other | RemoveKind::Folder
                )
                | EventKind::Create(CreateKind::Other | CreateKind::Any)
                | EventKind::Other
        )
}
