//! The parts of a running agent. One that panics stops all of it: what stands still would look alive, hold the Lease and
//! have its exports never change again; whoever started the agent starts it anew.

use anyhow::bail;
use std::panic::Location;
use std::sync::{Arc, OnceLock};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The parts, and what ends them.
#[derive(Debug)]
pub(super) struct Tasks {
    tracker: TaskTracker,
    watch: Watch,
}

#[derive(Debug, Clone)]
struct Watch {
    stop: CancellationToken,
    panicked: Arc<OnceLock<&'static Location<'static>>>,
}

impl Tasks {
    /// None yet; `stop` ends them, and is what a panic cancels.
    pub(super) fn new(stop: CancellationToken) -> Self {
        Tasks { tracker: TaskTracker::new(), watch: Watch { stop, panicked: Arc::default() } }
    }

    /// Begins one.
    #[track_caller]
    pub(super) fn spawn<F>(&self, part: F)
    where
        F: Future + Send + 'static,
    {
        let guard = Guard { watch: self.watch.clone(), begun: Location::caller() };
        self.tracker.spawn(async move {
            let _guard = guard;
            part.await;
        });
    }

    /// No more begin.
    pub(super) fn close(&self) {
        self.tracker.close();
    }

    /// Until all ended.
    pub(super) async fn wait(&self) {
        self.tracker.wait().await;
    }

    /// How many have not ended.
    pub(super) fn len(&self) -> usize {
        self.tracker.len()
    }

    /// An error where it was a panic that ended them.
    pub(super) fn outcome(&self) -> anyhow::Result<()> {
        if let Some(begun) = self.watch.panicked.get() {
            bail!("the part that is begun at {begun} panicked, and with it the agent stops: start it again");
        }
        Ok(())
    }
}

struct Guard {
    watch: Watch,
    begun: &'static Location<'static>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The first one is the reason; others may follow from it.
            let _ = self.watch.panicked.set(self.begun);
            self.watch.stop.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_that_panics_stops_the_others_and_is_named() {
        let stop = CancellationToken::new();
        let tasks = Tasks::new(stop.clone());
        tasks.spawn(stop.clone().cancelled_owned());
        tasks.spawn(async { tokio::task::yield_now().await });
        tokio::task::yield_now().await;
        assert!(!stop.is_cancelled(), "who ends without one stops nobody");
        tasks.spawn(async {
            tokio::task::yield_now().await;
            panic!("on purpose");
        });
        tasks.close();
        tasks.wait().await;
        assert!(stop.is_cancelled());
        let said = tasks.outcome().unwrap_err().to_string();
        assert!(said.contains("app/tasks.rs:"), "{said}");
    }
}
