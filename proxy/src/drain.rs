//! The end of a proxy: first it takes nothing new, then it waits for what is open, then it ends that too.

use std::future::Future;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Shared by everything that serves connections.
#[derive(Debug, Clone, Default)]
pub(crate) struct Drain {
    stop: CancellationToken,
    kill: CancellationToken,
    connections: TaskTracker,
}

impl Drain {
    /// Serves a connection, until it ends or must.
    pub(crate) fn serve(&self, connection: impl Future<Output = ()> + Send + 'static) {
        let kill = self.kill.clone();
        self.connections.spawn(async move {
            tokio::select! {
                () = connection => {}
                () = kill.cancelled() => {}
            }
        });
    }

    /// Takes nothing new from now on.
    pub(crate) fn begin(&self) {
        if !self.stop.is_cancelled() {
            tracing::info!(open = self.connections.len(), "draining");
        }
        self.stop.cancel();
    }

    /// Ends what is open.
    pub(crate) fn kill(&self) {
        self.begin();
        self.kill.cancel();
    }

    /// Connections that are open.
    pub(crate) fn open(&self) -> usize {
        self.connections.len()
    }

    /// Whether it began.
    pub(crate) fn draining(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Waits until it began.
    pub(crate) async fn began(&self) {
        self.stop.cancelled().await;
    }

    /// Waits for the open connections, at most this long, and ends the rest.
    pub(crate) async fn finish(&self, deadline: Duration) {
        self.connections.close();
        tokio::select! {
            () = self.connections.wait() => {}
            () = self.kill.cancelled() => {}
            () = tokio::time::sleep(deadline) => {
                tracing::info!(open = self.connections.len(), "connections did not end in time and are closed");
            }
        }
        self.kill.cancel();
        self.connections.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn an_open_connection_gets_the_deadline_and_no_more() {
        let drain = Drain::default();
        drain.serve(std::future::pending());
        drain.serve(async {});
        drain.begin();
        let began = Instant::now();
        drain.finish(Duration::from_secs(30)).await;
        assert_eq!(began.elapsed().as_secs(), 30);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_open_waits_for_nothing_and_kill_cuts_short() {
        let drain = Drain::default();
        let began = Instant::now();
        drain.begin();
        drain.finish(Duration::from_secs(30)).await;
        let drain = Drain::default();
        drain.serve(std::future::pending());
        drain.kill();
        drain.finish(Duration::from_secs(30)).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
