//! Events (`events.k8s.io/v1`), as many as people can read.
//!
//! Law: what is not the same is another Event, with the message of its own; the same, said again while it is still fresh, is
//! counted on the one that said it first.

use super::api::{RequestError, Resources, ask};
use super::effect::Note;
use super::seen::ObjectKey;
use crate::desired::MANAGER;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The same is said again after so long at the earliest.
const AGAIN: Duration = Duration::from_secs(300);
/// How long an Event is fresh: after it the same is told by another one.
const FRESH: Duration = Duration::from_secs(900);
/// How many may be told at once.
const BURST: f64 = 30.0;
/// How many more each second.
const RATE: f64 = 1.0;
/// Of how many notes it is known when they were told.
const KNOWN: usize = 4_096;
/// The longest message, by the API.
const LONGEST: usize = 1_000;

/// The limiter, shared by who plans notes and who tells them.
pub(super) type SharedLimiter = Arc<Mutex<Limiter>>;

/// What makes two notes the same: the object (also one that was made anew), the reason and the message.
type Said = (ObjectKey, String, String, String);

fn said(note: &Note) -> Said {
    (note.about.clone(), note.uid.clone(), note.reason.clone(), note.message.clone())
}

/// Lets notes pass at a bounded rate, each only once in a while.
#[derive(Debug)]
pub(super) struct Limiter {
    told: BTreeMap<Said, Instant>,
    tokens: f64,
    at: Instant,
}

impl Limiter {
    pub(super) fn new(now: Instant) -> Self {
        Limiter { told: BTreeMap::new(), tokens: BURST, at: now }
    }

    /// Whether a note is news, and not what was told a while ago.
    pub(super) fn is_news(&self, note: &Note, now: Instant) -> bool {
        self.told.get(&said(note)).is_none_or(|at| now - *at >= AGAIN)
    }

    /// Whether a note may be told now, which is when it counts: what is only planned may never be told.
    pub(super) fn passes(&mut self, note: &Note, now: Instant) -> bool {
        if !self.is_news(note, now) {
            return false;
        }
        self.tokens = (self.tokens + (now - self.at).as_secs_f64() * RATE).min(BURST);
        self.at = now;
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        remember(&mut self.told, said(note), now, |at| now - *at < AGAIN);
        true
    }

    /// A note could not be told after all: it is still news.
    fn untold(&mut self, note: &Note) {
        self.told.remove(&said(note));
    }
}

/// Puts something there if there is room, where need be by forgetting what does not matter any more.
fn remember<V>(known: &mut BTreeMap<Said, V>, key: Said, value: V, matters: impl Fn(&V) -> bool) {
    if known.len() >= KNOWN {
        known.retain(|_, value| matters(value));
    }
    if known.len() < KNOWN {
        known.insert(key, value);
    }
}

/// An Event that was written.
#[derive(Debug, Clone, PartialEq)]
struct Written {
    name: String,
    /// How often it was said.
    count: i32,
    at: Instant,
}

/// Writes Events.
#[derive(Clone)]
pub(super) struct Teller {
    replica: String,
    resources: Resources,
    limiter: SharedLimiter,
    written: Arc<Mutex<BTreeMap<Said, Written>>>,
}

impl Teller {
    pub(super) fn new(resources: Resources, replica: &str, limiter: SharedLimiter) -> Self {
        Teller { replica: replica.to_owned(), resources, limiter, written: Arc::default() }
    }

    /// Tells a note, where there are not too many. One that can not be told is lost: the conditions say the same.
    pub(super) async fn tell(&self, note: &Note) {
        let passes = self.limiter.lock().unwrap_or_else(PoisonError::into_inner).passes(note, Instant::now());
        if !passes {
            return;
        }
        if let Err(error) = self.write(note).await {
            tracing::warn!(object = %note.about, error = %error, "can not write an event");
            self.limiter.lock().unwrap_or_else(PoisonError::into_inner).untold(note);
        }
    }

    async fn write(&self, note: &Note) -> Result<(), RequestError> {
        let events: Api<Event> = Api::namespaced(self.resources.client(), note.about.namespace.as_str());
        let (key, at, now) = (said(note), Instant::now(), Timestamp::now());
        if let Some(first) = self.fresh(&key, at) {
            let (count, last) = (first.count.saturating_add(1), MicroTime(now));
            let series = json!({"series": EventSeries { count, last_observed_time: last }});
            let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
            match ask(events.patch(&first.name, &params, &Patch::Merge(&series))).await {
                Ok(_) => {
                    self.remember(key, Written { count, at, ..first });
                    return Ok(());
                }
                // It was deleted, or was too old for the API server.
                Err(RequestError::Refused(_, status)) if status.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        let kind = &self.resources.of(note.about.kind).api_version;
        let event = event(note, kind, &self.replica, now);
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        ask(events.create(&params, &event)).await?;
        self.remember(key, Written { name: event.metadata.name.unwrap_or_default(), count: 1, at });
        Ok(())
    }

    fn fresh(&self, key: &Said, now: Instant) -> Option<Written> {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.get(key).filter(|first| now - first.at < FRESH).cloned()
    }

    fn remember(&self, key: Said, event: Written) {
        let (mut written, now) = (self.written.lock().unwrap_or_else(PoisonError::into_inner), event.at);
        remember(&mut written, key, event, |first| now - first.at < FRESH);
    }
}

fn event(note: &Note, api_version: &str, replica: &str, now: Timestamp) -> Event {
    let namespace = Some(note.about.namespace.to_string());
    let mut message = note.message.clone();
    let end = (0..=LONGEST.min(message.len())).rev().find(|at| message.is_char_boundary(*at));
    message.truncate(end.unwrap_or(0));
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{}.{:x}", note.about.name, now.as_nanosecond())),
            namespace: namespace.clone(),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(now)),
        type_: Some(if note.warning { "Warning" } else { "Normal" }.to_owned()),
        reason: Some(note.reason.chars().take(128).collect()),
        note: Some(message),
        action: Some("Federate".to_owned()),
        reporting_controller: Some(MANAGER.to_owned()),
        reporting_instance: Some(replica.chars().take(128).collect()),
        regarding: Some(ObjectReference {
            api_version: Some(api_version.to_owned()),
            kind: Some(note.about.kind.as_str().to_owned()),
            namespace,
            name: Some(note.about.name.clone()),
            uid: Some(note.uid.clone()),
            ..ObjectReference::default()
        }),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::seen::Kind;
    use super::*;

    #[test]
    fn the_same_is_told_once_in_a_while_and_many_at_a_bounded_rate() {
        let start = Instant::now();
        let mut limiter = Limiter::new(start);
        let note = |n: u32| Note {
            about: ObjectKey {
                kind: Kind::Import,
                namespace: "shop".parse().unwrap(),
                name: format!("web-{n}"),
            },
            uid: String::new(),
            warning: true,
            reason: "Pending".to_owned(),
            message: "no".to_owned(),
        };
        assert!(limiter.passes(&note(0), start));
        assert!(!limiter.passes(&note(0), start));
        // Another message is another note, and neither makes the first one new.
        assert!(limiter.passes(&Note { message: "other".to_owned(), ..note(0) }, start));
        assert!(!limiter.passes(&note(0), start));
        assert_eq!((1..100).filter(|n| limiter.passes(&note(*n), start)).count(), 28);
        let later = start + Duration::from_secs(3);
        assert_eq!((100..200).filter(|n| limiter.passes(&note(*n), later)).count(), 3);
        assert!(limiter.passes(&note(1), start + AGAIN + Duration::from_secs(1)));
    }
}
