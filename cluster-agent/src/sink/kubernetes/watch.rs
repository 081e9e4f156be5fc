//! The reflectors: what the API server holds of the sink's kinds, reduced at the door.

use super::api::Resources;
use super::misnamed::Misnamed;
use super::seen::{Kind, ObjectKey, Seen, service_of};
use crate::backoff::Backoff;
use crate::desired::{MANAGED_BY, MANAGER, SLICE_MANAGER};
use futures::StreamExt;
use kube::api::DynamicObject;
use kube::runtime::{WatchStreamExt, watcher};
use sealane_core::name::{Namespace, ServiceKey};
use serde_json::Value;
use std::pin::pin;
use std::time::Duration;
use tokio::sync::mpsc;

/// How many events may wait for the sink: a watch that is ahead by more waits.
pub(super) const EVENTS: usize = 256;
/// How long one watch lasts: an API server that went silent is noticed soon after.
const WATCH_S: u32 = 50;

/// The waits between tries: the longest of them is how late a change is seen after an API server that was away.
const WAITS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(3));

/// Our own waits, where kube asks for some.
struct Waits(Backoff);

impl Iterator for Waits {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.0.pause())
    }
}

impl kube::runtime::utils::Backoff for Waits {
    fn reset(&mut self) {
        self.0.reset();
    }
}

/// An object as it is, with the service that it is about.
pub(super) type Found = (ObjectKey, ServiceKey, Seen);

/// What a watch says.
#[derive(Debug)]
pub(super) enum WatchEvent {
    /// These are all objects of the kind.
    Listed(Kind, Vec<Found>),
    /// One is so now.
    Put(Box<Found>),
    /// One is gone.
    Gone(ObjectKey),
    /// These are all exports whose name no Service can have.
    ListedMisnamed(Vec<Misnamed>),
    /// One of those is so now.
    PutMisnamed(Box<Misnamed>),
    /// The kind can not be read now.
    Unavailable(Kind, String),
}

/// Watches one kind until nobody listens.
pub(super) async fn watch(resources: Resources, kind: Kind, events: mpsc::Sender<WatchEvent>) {
    let config = watcher::Config::default().timeout(WATCH_S);
    let config = match kind {
        Kind::Import | Kind::Export => config,
        Kind::Service => config.labels(&format!("{MANAGED_BY}={MANAGER}")),
        Kind::Slice => config.labels(&format!("{SLICE_MANAGER}={MANAGER}")),
    };
    let mut stream =
        pin!(watcher(resources.all(kind), config).backoff(Waits(Backoff::new(WAITS.0, WAITS.1))));
    let (mut listed, mut misnamed) = (Vec::new(), Vec::new());
    while let Some(event) = stream.next().await {
        let event = match event {
            Ok(watcher::Event::Init) => {
                listed.clear();
                misnamed.clear();
                None
            }
            Ok(watcher::Event::InitApply(object)) => {
                match is_misnamed(kind, &object) {
                    true => misnamed.extend(reduce_misnamed(object)),
                    false => listed.extend(reduce(kind, object)),
                }
                None
            }
            Ok(watcher::Event::InitDone) => {
                let misnamed = WatchEvent::ListedMisnamed(std::mem::take(&mut misnamed));
                if kind == Kind::Export && events.send(misnamed).await.is_err() {
                    return;
                }
                Some(WatchEvent::Listed(kind, std::mem::take(&mut listed)))
            }
            Ok(watcher::Event::Apply(object)) if is_misnamed(kind, &object) => {
                reduce_misnamed(object).map(|one| WatchEvent::PutMisnamed(Box::new(one)))
            }
            Ok(watcher::Event::Apply(object)) => {
                reduce(kind, object).map(|found| WatchEvent::Put(Box::new(found)))
            }
            Ok(watcher::Event::Delete(object)) => key_of(kind, &object).map(WatchEvent::Gone),
            Err(error) => Some(WatchEvent::Unavailable(kind, error.to_string())),
        };
        if let Some(event) = event
            && events.send(event).await.is_err()
        {
            return;
        }
    }
}

/// An object, reduced; `None` for one that is about no service.
pub(super) fn reduce(kind: Kind, object: DynamicObject) -> Option<Found> {
    let key = key_of(kind, &object)?;
    let service = service_of(kind, &object.metadata)?;
    Some((key, service, seen(kind, object)))
}

fn seen(kind: Kind, object: DynamicObject) -> Seen {
    let DynamicObject { metadata, mut data, .. } = object;
    // The reduction projects the whole object; the fields' owners themselves are no part of it.
    let mut bare = metadata.clone();
    bare.managed_fields = None;
    data["metadata"] = serde_json::to_value(bare).unwrap_or(Value::Null);
    Seen::of(kind, &metadata, &data)
}

/// Whether it is an export whose name no Service can have.
fn is_misnamed(kind: Kind, object: &DynamicObject) -> bool {
    kind == Kind::Export && service_of(kind, &object.metadata).is_none()
}

fn reduce_misnamed(object: DynamicObject) -> Option<Misnamed> {
    Some((key_of(Kind::Export, &object)?, seen(Kind::Export, object)))
}

fn key_of(kind: Kind, object: &DynamicObject) -> Option<ObjectKey> {
    let namespace = Namespace::parse(object.metadata.namespace.as_deref()?).ok()?;
    Some(ObjectKey { kind, namespace, name: object.metadata.name.clone()? })
}
