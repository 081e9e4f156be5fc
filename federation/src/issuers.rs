//! The keys of issuers that are fetched: asked for when a token comes, kept for a while, and asked for again when a token
//! names a key that is not among them.
//!
//! Law: what strangers send makes an issuer be asked once in [`PAUSE`] at most, by one request at a time, whoever else
//! waits for it; an answer is bounded in time and size. Issuers and what they are verified by come from an administrator.

mod fetch;

use fetch::FetchError;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use sealane_core::state::IssuerKey;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long keys are taken without asking again: for so long a key that the issuer withdrew is still believed.
const FRESH: Duration = Duration::from_secs(300);
/// How long keys are taken while the issuer does not answer.
const KEPT: Duration = Duration::from_secs(3_600);
/// The least time between two requests to one issuer.
const PAUSE: Duration = Duration::from_secs(10);
/// The most issuers whose keys are kept; those that were asked for longest ago give way.
const ISSUERS: usize = 256;

/// An issuer, and the only authorities (DER) that it is verified by; none for those of this machine.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Source {
    /// Its https URL.
    pub(crate) url: String,
    /// The authorities.
    pub(crate) authorities: Vec<Vec<u8>>,
}

/// Keys of an issuer.
pub(crate) type Keys = Arc<Vec<IssuerKey>>;

/// The issuer gave no keys. It is logged here; a stranger is told no more than this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "this server can not fetch the keys of the cluster's issuer now, and its log says why: try again later"
)]
pub(crate) struct Unavailable;

type Flight = Shared<BoxFuture<'static, Option<Keys>>>;

/// The keys that are known. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Issuers(Arc<Mutex<BTreeMap<Source, Entry>>>);

impl std::fmt::Debug for Issuers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Issuers")
    }
}

/// What is known of one issuer.
#[derive(Clone, Default)]
struct Entry {
    keys: Option<(Keys, Instant)>,
    asked: Option<Instant>,
    flight: Option<Flight>,
}

/// What to do for a token.
enum Step {
    Use(Keys),
    Wait(Flight),
    Ask,
    GiveUp,
}

impl Entry {
    /// `among` says whether the token's key is among some keys.
    fn step(&self, among: impl Fn(&[IssuerKey]) -> bool, now: Instant) -> Step {
        let within = |at: Instant, span| now.saturating_duration_since(at) < span;
        let known = self.keys.as_ref();
        match known {
            Some((keys, at)) if within(*at, FRESH) && among(keys) => return Step::Use(keys.clone()),
            _ => {}
        }
        if let Some(flight) = &self.flight {
            return Step::Wait(flight.clone());
        }
        if self.asked.is_none_or(|at| !within(at, PAUSE)) {
            return Step::Ask;
        }
        match known {
            Some((keys, at)) if within(*at, KEPT) => Step::Use(keys.clone()),
            _ => Step::GiveUp,
        }
    }
}

impl Issuers {
    /// The keys of an issuer, for a token of which `among` says whether its key is among some.
    ///
    /// # Errors
    /// When the issuer does not answer, and nothing is known of it from before.
    pub(crate) async fn keys(
        &self,
        source: &Source,
        among: impl Fn(&[IssuerKey]) -> bool,
    ) -> Result<Keys, Unavailable> {
        let flight = {
            let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            make_room(&mut entries, source);
            let entry = entries.entry(source.clone()).or_default();
            match entry.step(among, now) {
                Step::Use(keys) => return Ok(keys),
                Step::GiveUp => return Err(Unavailable),
                Step::Wait(flight) => flight,
                Step::Ask => {
                    let flight = self.ask(source.clone());
                    entry.asked = Some(now);
                    entry.flight = Some(flight.clone());
                    flight
                }
            }
        };
        if let Some(keys) = flight.await {
            return Ok(keys);
        }
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = entries.get(source).and_then(|entry| entry.keys.clone());
        kept.filter(|(_, at)| at.elapsed() < KEPT).map(|(keys, _)| keys).ok_or(Unavailable)
    }

    /// Asks, to the end: also when whoever wanted to know is gone.
    fn ask(&self, source: Source) -> Flight {
        let this = self.clone();
        let asking = tokio::spawn(async move {
            let fetched = fetch::keys(&source).await;
            this.land(&source, fetched)
        });
        asking.map(|ended| ended.ok().flatten()).boxed().shared()
    }

    fn land(&self, source: &Source, fetched: Result<Vec<IssuerKey>, FetchError>) -> Option<Keys> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.entry(source.clone()).or_default();
        entry.flight = None;
        match fetched {
            Ok(keys) => {
                tracing::info!(issuer = source.url, keys = keys.len(), "fetched the keys of an issuer");
                let keys = Arc::new(keys);
                entry.keys = Some((keys.clone(), Instant::now()));
                Some(keys)
            }
            Err(error) => {
                tracing::warn!(issuer = source.url, %error, "can not fetch the keys of an issuer");
                None
            }
        }
    }
}

fn make_room(entries: &mut BTreeMap<Source, Entry>, wanted: &Source) {
    while entries.len() >= ISSUERS && !entries.contains_key(wanted) {
        let idle = entries.iter().filter(|(_, entry)| entry.flight.is_none());
        let oldest = idle.min_by_key(|(_, entry)| entry.asked).map(|(source, _)| source.clone());
        // With a request under way to each, one more is kept for as long as it lasts.
        let Some(oldest) = oldest else { return };
        entries.remove(&oldest);
    }
}

#[cfg(test)]
mod tests;
