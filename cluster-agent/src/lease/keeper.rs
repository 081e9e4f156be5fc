//! The loop around the election: one request at a time to the API server.

use super::{DURATION, Election, Name, RENEW, Record, Standing, Step, WRITE};
use crate::desired::{MANAGED_BY, MANAGER};
use crate::kubernetes::is_overtaken;
use crate::status::{LeaseStatus, Status};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::Client;
use kube::api::{Api, PostParams};
use sealane_core::name::Namespace;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How soon the Lease is read after a write of somebody else was in the way.
const AGAIN: Duration = Duration::from_millis(100);
/// The Lease's name.
const NAME: &str = "sealane-agent";

/// What the loop needs.
#[derive(Debug)]
pub struct Keeper {
    /// Who this process is.
    pub name: Name,
    /// Where the standing goes.
    pub standing: watch::Sender<Standing>,
    /// Where what happens is told.
    pub status: Arc<Status>,
    /// Whoever writes under the Lease: it is given back when they ended.
    pub writers: TaskTracker,
}

#[derive(Debug, thiserror::Error)]
enum RequestError {
    #[error("the API server has not answered for {WRITE:?}")]
    Silent,
    #[error("{0}")]
    Call(#[from] kube::Error),
    #[error("the Lease has no UID and resourceVersion")]
    Unversioned,
}

/// Takes part in the election until stopped, then gives back what it holds.
pub async fn keep(client: Client, namespace: Namespace, keeper: Keeper, stop: CancellationToken) {
    let leases: Api<Lease> = Api::namespaced(client, namespace.as_str());
    let mut election = Election::new(keeper.name.clone());
    let mut pause = Duration::ZERO;
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(pause) => {}
        }
        let before = election.standing();
        let acted = act(&leases, &mut election, &keeper.name.own).await;
        pause = match &acted {
            // What was seen may have to be acted on at once.
            Ok(()) => match election.step(Instant::now()) {
                Step::Write { .. } if term(election.standing()).is_none() => Duration::ZERO,
                // A write was refused, or its answer lost.
                Step::Look if election.is_blind() => AGAIN,
                _ => RENEW,
            },
            Err(_) => RENEW.mul_f64(rand::random_range(0.5..1.0)),
        };
        keeper.tell(&election, before, acted.err());
    }
    keeper.standing.send_replace(Standing::Follower);
    // They are stopped by the same token, and a write ends in this time.
    if timeout(WRITE, keeper.writers.wait()).await.is_ok() {
        give_back(&leases, &election, &keeper.name.own).await;
    }
}

fn term(standing: Standing) -> Option<u32> {
    match standing {
        Standing::Follower => None,
        Standing::Leader { term, .. } => Some(term),
    }
}

impl Keeper {
    fn tell(&self, election: &Election, before: Standing, error: Option<RequestError>) {
        let now = election.standing();
        self.standing.send_replace(now);
        match (term(before), term(now)) {
            (before, Some(term)) if before != Some(term) => {
                tracing::info!(replica = self.name.own, term, "this replica writes from now on");
            }
            (Some(term), None) => {
                let holder = election.holder();
                tracing::warn!(replica = self.name.own, term, holder, "another replica writes from now on");
            }
            _ => {}
        }
        let error = error.map(|e| e.to_string());
        let told = LeaseStatus {
            replica: self.name.own.clone(),
            holder: election.holder().map(str::to_owned),
            term: term(now),
            transitions: election.transitions(),
            error: error.clone(),
        };
        if self.status.lease(told)
            && let Some(error) = error
        {
            tracing::warn!(error, "can not read or write the Lease");
        }
    }
}

async fn act(leases: &Api<Lease>, election: &mut Election, me: &str) -> Result<(), RequestError> {
    let began = Instant::now();
    match election.step(began) {
        Step::Look => {
            let found = bounded(leases.get_opt(NAME)).await?;
            election.saw(Instant::now(), found.map(record).transpose()?);
        }
        Step::Write { term, over, acquired } => {
            let lease = lease(Some(me), term, acquired, over.clone());
            let written = match over {
                Some(_) => bounded(leases.replace(NAME, &by_us(), &lease)).await,
                None => bounded(leases.create(&by_us(), &lease)).await,
            };
            match written {
                Ok(lease) => election.wrote(began, record(lease)?),
                Err(RequestError::Call(error)) if is_overtaken(&error) => election.refused(),
                Err(error) => {
                    // Whether it was written is not known.
                    election.refused();
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}

async fn give_back(leases: &Api<Lease>, election: &Election, me: &str) {
    let (Step::Write { over: Some(over), .. }, Some(term), Some(holder)) =
        (election.step(Instant::now()), term(election.standing()), election.holder())
    else {
        return;
    };
    if holder != me {
        return;
    }
    let lease = lease(None, term, None, Some(over));
    if let Err(error) = bounded(leases.replace(NAME, &by_us(), &lease)).await {
        tracing::info!(%error, "the Lease was not given back: it ends by itself");
    }
}

async fn bounded<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, RequestError> {
    Ok(timeout(WRITE, request).await.map_err(|_| RequestError::Silent)??)
}

fn by_us() -> PostParams {
    PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() }
}

/// A Lease as whoever reads it expects: with the time of the term's begin, that of this write without one, and the number of
/// times that it changed hands.
fn lease(
    holder: Option<&str>,
    term: u32,
    acquired: Option<jiff::Timestamp>,
    version: Option<String>,
) -> Lease {
    let now = jiff::Timestamp::now();
    Lease {
        metadata: ObjectMeta {
            name: Some(NAME.to_owned()),
            labels: Some([(MANAGED_BY.to_owned(), MANAGER.to_owned())].into()),
            resource_version: version,
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(holder.unwrap_or_default().to_owned()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            lease_transitions: i32::try_from(term).ok(),
            acquire_time: Some(MicroTime(acquired.unwrap_or(now))),
            renew_time: Some(MicroTime(now)),
            ..LeaseSpec::default()
        }),
    }
}

fn record(lease: Lease) -> Result<Record, RequestError> {
    let spec = lease.spec.unwrap_or_default();
    let seconds = spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok());
    Ok(Record {
        uid: lease.metadata.uid.ok_or(RequestError::Unversioned)?,
        holder: spec.holder_identity.filter(|h| !h.is_empty()),
        duration: seconds.map_or(DURATION, Duration::from_secs),
        transitions: spec.lease_transitions.and_then(|t| u32::try_from(t).ok()).unwrap_or(0),
        acquired: spec.acquire_time.map(|time| time.0),
        version: lease.metadata.resource_version.ok_or(RequestError::Unversioned)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renewed_lease_says_when_it_was_taken_and_how_often() {
        let micros = |text: &str| MicroTime(text.parse().unwrap());
        let taken = "2026-11-21T10:00:00.123456Z";
        let spec = |lease: &Lease| lease.spec.clone().unwrap();
        let renewed = lease(Some("a"), 2, Some(taken.parse().unwrap()), Some("7".to_owned()));
        let expected = LeaseSpec {
            holder_identity: Some("a".to_owned()),
            lease_duration_seconds: Some(10),
            lease_transitions: Some(2),
            acquire_time: Some(micros(taken)),
            renew_time: spec(&renewed).renew_time,
            ..LeaseSpec::default()
        };
        assert_eq!(spec(&renewed), expected);
        assert_ne!(expected.renew_time, expected.acquire_time);
        let begun = spec(&lease(Some("a"), 0, None, None));
        assert_eq!((begun.lease_transitions, begun.acquire_time), (Some(0), begun.renew_time));

        let metadata = ObjectMeta {
            uid: Some("u".to_owned()),
            resource_version: Some("8".to_owned()),
            ..ObjectMeta::default()
        };
        let read = record(Lease { metadata, spec: Some(expected) }).unwrap();
        assert_eq!((read.acquired, read.transitions), (Some(taken.parse().unwrap()), 2));
    }
}
