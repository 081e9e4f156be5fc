//! A stream of requests, each on a connection of its own, counted by who answered.

use super::http;
use crate::app::Greeting;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::OwnedMutexGuard;
use tokio::task::JoinHandle;

/// The pause between two requests.
const PAUSE: Duration = Duration::from_millis(10);
/// Failures that are kept with their reason.
const MAX_FAILURES: usize = 100;

/// What became of the requests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Good answers by the name of the application that gave them.
    pub answers: BTreeMap<String, u64>,
    /// How many requests got no good answer.
    pub failed: u64,
    /// Why, for the first of them.
    pub failures: Vec<String>,
    /// The longest time between two good answers.
    pub longest_gap: Duration,
}

impl Tally {
    /// How many requests were answered well.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.answers.values().sum()
    }

    /// How many were answered well by applications of one cluster.
    #[must_use]
    pub fn answered_by(&self, cluster: &str) -> u64 {
        let of = |name: &&String| name.split('/').next() == Some(cluster);
        self.answers.iter().filter(|(name, _)| of(name)).map(|(_, count)| count).sum()
    }
}

/// A running stream of requests to one address. Dropping it ends it.
#[derive(Debug)]
pub struct Traffic {
    tally: Arc<Mutex<Tally>>,
    /// Held while a request is under way.
    turn: Arc<Turn>,
    task: JoinHandle<()>,
}

type Turn = tokio::sync::Mutex<()>;

impl Traffic {
    /// Starts the stream.
    #[must_use]
    pub fn start(address: SocketAddr) -> Self {
        let tally = Arc::<Mutex<Tally>>::default();
        let turn = Arc::<Turn>::default();
        let task = tokio::spawn(run(address, Arc::clone(&tally), Arc::clone(&turn)));
        Traffic { tally, turn, task }
    }

    /// Waits until no request is under way; the next one waits for the guard to go. What an application that is killed
    /// had begun to answer, nobody can finish.
    pub async fn between(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.turn).lock_owned().await
    }

    /// What became of the requests so far.
    #[must_use]
    pub fn so_far(&self) -> Tally {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends the stream and gives the count.
    #[must_use]
    pub fn stop(self) -> Tally {
        self.so_far()
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(address: SocketAddr, tally: Arc<Mutex<Tally>>, turn: Arc<Turn>) {
    let mut last = Instant::now();
    loop {
        let marker = format!("traffic-{:?}", last.elapsed());
        let begun = turn.lock().await;
        let answer =
            http::ask(address, &marker, Duration::from_secs(5)).await.and_then(|a| a.json::<Greeting>());
        drop(begun);
        {
            let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
            match answer {
                Ok(greeting) if greeting.marker.as_deref() == Some(&marker) => {
                    *tally.answers.entry(greeting.name).or_default() += 1;
                    tally.longest_gap = tally.longest_gap.max(last.elapsed());
                    last = Instant::now();
                }
                Ok(greeting) => tally.fail(format!("{} gave another's marker back", greeting.name)),
                Err(error) => tally.fail(format!("{error:#}")),
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

impl Tally {
    fn fail(&mut self, reason: String) {
        self.failed += 1;
        if self.failures.len() < MAX_FAILURES {
            self.failures.push(reason);
        }
    }
}
