//! A closed loop: every client has one command outstanding and sends the next when that is answered.

use crate::quantile::Samples;
use crate::usage;
use anyhow::{Context, Result};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// One who sends commands.
pub(crate) trait Client: Send + 'static {
    /// Sends one command and waits for its answer.
    fn command(&mut self) -> impl Future<Output = Result<()>> + Send;
}

/// How long a slice lasts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    /// Not measured.
    pub(crate) warmup: Duration,
    /// Measured.
    pub(crate) measured: Duration,
}

/// What a slice found.
#[derive(Debug, Clone)]
pub(crate) struct Slice {
    /// From sending to the answer, of commands that were answered while it was measured.
    pub(crate) latencies: Samples,
    /// How long that was.
    pub(crate) elapsed: Duration,
    /// The processor time of the servers meanwhile.
    pub(crate) servers: Duration,
    /// The processor time of this process, which is the clients'.
    pub(crate) clients: Duration,
}

impl Slice {
    /// Commands answered a second.
    pub(crate) fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64()
    }

    /// Seconds of processor time for a thousand commands.
    pub(crate) fn per_thousand(&self, time: Duration) -> f64 {
        time.as_secs_f64() * 1000.0 / self.latencies.len().max(1) as f64
    }
}

/// Drives the clients at once, beside the servers with these process ids.
///
/// # Errors
/// When any command fails: a benchmark in which some did would compare nothing.
pub(crate) async fn drive<C: Client>(clients: Vec<C>, servers: &[u32], timing: Timing) -> Result<Slice> {
    let begin = Instant::now() + timing.warmup;
    let end = begin + timing.measured;
    let mut tasks = JoinSet::new();
    for client in clients {
        tasks.spawn(repeat(client, begin, end));
    }
    tokio::time::sleep_until(begin.into()).await;
    let (started, before) = (Instant::now(), used(servers)?);
    tokio::time::sleep_until(end.into()).await;
    let after = used(servers)?;
    // The processor time is of a span that differs from the measured one by how late the timers fired.
    let stretch = timing.measured.as_secs_f64() / started.elapsed().as_secs_f64();
    let mut latencies = Samples::default();
    while let Some(done) = tasks.join_next().await {
        latencies.extend(done.context("a client panicked")??);
    }
    Ok(Slice {
        latencies,
        elapsed: timing.measured,
        servers: (after.0 - before.0).mul_f64(stretch),
        clients: (after.1 - before.1).mul_f64(stretch),
    })
}

/// The processor time of all the servers, and of this process.
fn used(servers: &[u32]) -> Result<(Duration, Duration)> {
    let servers = servers.iter().map(|id| usage::cpu(*id)).sum::<Result<Duration>>()?;
    Ok((servers, usage::cpu(std::process::id())?))
}

async fn repeat<C: Client>(mut client: C, begin: Instant, end: Instant) -> Result<Samples> {
    let mut latencies = Samples::default();
    loop {
        let sent = Instant::now();
        if sent >= end {
            return Ok(latencies);
        }
        client.command().await?;
        let answered = Instant::now();
        if answered >= begin && answered < end {
            latencies.push(answered - sent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Slow;

    impl Client for Slow {
        async fn command(&mut self) -> Result<()> {
            tokio::time::sleep(Duration::from_millis(10)).await;
            Ok(())
        }
    }

    struct Failing;

    impl Client for Failing {
        async fn command(&mut self) -> Result<()> {
            anyhow::bail!("no")
        }
    }

    const TIMING: Timing = Timing { warmup: Duration::from_millis(50), measured: Duration::from_millis(200) };

    #[tokio::test]
    async fn what_is_answered_in_time_is_counted() {
        let slice = drive(vec![Slow, Slow], &[std::process::id()], TIMING).await.unwrap();
        assert!((2..=40).contains(&slice.latencies.len()), "{}", slice.latencies.len());
        assert!(slice.latencies.quantile(0.0).unwrap() >= Duration::from_millis(10));
    }

    #[tokio::test]
    async fn one_failure_fails_all() {
        assert!(drive(vec![Failing], &[std::process::id()], TIMING).await.is_err());
    }
}
