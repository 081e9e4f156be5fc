//! How the agent is asked to end, and when it does.

use anyhow::Context;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Two steps: from the first on it says that it is not ready, and answers as before; at the second it stops.
#[derive(Debug, Clone, Default)]
pub(super) struct Ending {
    /// It was asked to end.
    pub(super) asked: CancellationToken,
    /// It stops.
    pub(super) stop: CancellationToken,
}

impl Ending {
    /// At SIGTERM, so much time lies between the two; at SIGINT none.
    pub(super) fn on_signal(linger: Option<Duration>) -> anyhow::Result<Self> {
        let terminate = signal(SignalKind::terminate()).context("can not listen for SIGTERM")?;
        let interrupt = signal(SignalKind::interrupt()).context("can not listen for SIGINT")?;
        let ending = Ending::default();
        tokio::spawn(ending.clone().follow(terminate, interrupt, linger.unwrap_or_default()));
        Ok(ending)
    }

    async fn follow(self, mut terminate: Signal, mut interrupt: Signal, linger: Duration) {
        let patient = tokio::select! {
            _ = terminate.recv() => true,
            _ = interrupt.recv() => false,
        };
        self.asked.cancel();
        if patient && !linger.is_zero() {
            tracing::info!(
                seconds = linger.as_secs(),
                "asked to stop: going on until everybody has heard of it"
            );
            tokio::select! {
                () = tokio::time::sleep(linger) => {}
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
        tracing::info!("stopping");
        self.stop.cancel();
    }
}
