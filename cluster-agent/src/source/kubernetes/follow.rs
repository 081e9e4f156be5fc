//! One kind, listed and watched for ever.
//!
//! A list is a watch that begins with what exists, where the server can do that, and pages elsewhere; both are of the
//! latest state and never of a server's cache, so that what a list lacks is gone. What comes after a failure is decided by
//! [`answer`]; every wait between tries is jittered.

use super::kind::{Kind, ObjectName};
use super::thin::Thin;
use crate::backoff::Backoff;
use crate::index::Part;
use crate::kubernetes::{REQUEST, WATCH};
use crate::source::Problem;
use futures::stream::{self, BoxStream, Stream, StreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
use kube::Client;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::core::{Request, Status};
use sealane_trust::grpc::causes;
use serde::Deserialize;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// The waits between tries, where the API server says no.
const FIRST: Duration = Duration::from_millis(200);
const MOST: Duration = Duration::from_secs(10);
/// The longest wait where nothing answers: asking costs nobody anything, and what changed meanwhile is waited for.
const AWAY: Duration = Duration::from_secs(1);
/// How many objects a page of a list has.
const PAGE: u32 = 500;
/// How long a page may take.
const PAGING: Duration = Duration::from_secs(30);
/// A watch that lasted as long was a good one.
const LASTED: Duration = Duration::from_secs(5);
/// Ends what a watch begins with.
const INITIAL_END: &str = "k8s.io/initial-events-end";

/// What a stream says of its kind.
#[derive(Debug)]
pub(super) enum Told {
    /// A list begins.
    Begun,
    /// The object is so: listed, added or changed.
    Object(Box<Seen>),
    /// It was deleted.
    Gone(ObjectName),
    /// The list that began last is complete.
    Listed,
    /// The watch goes on where it ended.
    Alive,
    /// The kind can not be read now.
    Failed(String),
}

/// One object.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) name: ObjectName,
    pub(super) version: Box<str>,
    pub(super) part: Result<Option<Part>, Problem>,
}

/// What was being done when something failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// A list by a watch.
    Streaming,
    /// A list by pages.
    Paging,
    /// The begin of a watch.
    Beginning,
    /// A watch.
    Watching,
}

/// What failed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Trouble {
    /// The server does not have what was since then (410), or is behind it (restored from a backup).
    Expired,
    /// There is no such collection.
    Absent,
    /// The server refuses lists by watches.
    Unsupported,
    /// This agent may not.
    Forbidden(String),
    /// Nothing answers, or not to the end.
    Away(String),
    /// Any other answer.
    Other(String),
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    List,
    Resume,
}

/// What comes after a failure: what to do, whether by the other way to list, whether at another path, and whether people
/// are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Answer {
    next: Next,
    pages: bool,
    moved: bool,
    told: bool,
}

fn answer(at: At, trouble: &Trouble) -> Answer {
    let answer = |next, told| Answer { next, pages: false, moved: false, told };
    let next = if matches!(at, At::Streaming | At::Paging) { Next::List } else { Next::Resume };
    match trouble {
        Trouble::Expired => answer(Next::List, at == At::Paging),
        // What follows is a list at the other path: it deletes nothing unless it is complete.
        Trouble::Absent => Answer { moved: true, ..answer(Next::List, true) },
        Trouble::Unsupported if at == At::Streaming => Answer { pages: true, ..answer(Next::List, false) },
        Trouble::Unsupported | Trouble::Forbidden(_) => answer(next, true),
        // A list by a watch that broke off may have been too long for one request.
        Trouble::Away(_) | Trouble::Other(_) if at == At::Streaming => {
            Answer { pages: true, ..answer(Next::List, true) }
        }
        // A connection that ends is no news; one that can not be made again is.
        Trouble::Away(_) | Trouble::Other(_) => answer(next, at != At::Watching),
    }
}

impl Trouble {
    fn of(error: &kube::Error) -> Trouble {
        match error {
            kube::Error::Api(status) => Trouble::of_status(status),
            other => Trouble::Away(causes(other)),
        }
    }

    fn of_status(status: &Status) -> Trouble {
        let causes = status.details.iter().flat_map(|d| &d.causes);
        let behind = causes.into_iter().any(|c| c.reason == "ResourceVersionTooLarge");
        match status.code {
            410 => Trouble::Expired,
            _ if behind => Trouble::Expired,
            404 => Trouble::Absent,
            400 | 422 => Trouble::Unsupported,
            403 => Trouble::Forbidden(status.message.clone()),
            code => Trouble::Other(format!("{code}: {}", status.message)),
        }
    }

    fn sentence(&self, kind: Kind, at: At) -> String {
        let verb = match at {
            At::Streaming | At::Paging => "list",
            At::Beginning | At::Watching => "watch",
        };
        match self {
            Trouble::Expired => "can not list: it changes faster than it is listed".to_owned(),
            Trouble::Absent => kind.absent().to_owned(),
            Trouble::Unsupported => format!("can not {verb}: the API server refuses the request"),
            Trouble::Forbidden(said) => {
                format!(
                    "this agent may not {verb} {} (its role needs list and watch): {said}",
                    kind.resource()
                )
            }
            Trouble::Away(said) | Trouble::Other(said) => format!("can not {verb}: {said}"),
        }
    }
}

/// Follows a kind; the stream never ends.
pub(super) fn follow<T: Thin>(client: Client) -> impl Stream<Item = (Kind, Told)> + Send {
    let begin = Follow::<T> {
        client,
        place: Place::Begin,
        path: 0,
        streams: true,
        plain: false,
        pause: Duration::ZERO,
        waits: Waits::default(),
    };
    stream::unfold(begin, |mut follow| async move {
        let told = follow.step().await;
        Some(((T::KIND, told), follow))
    })
}

type Events<T> = BoxStream<'static, kube::Result<WatchEvent<T>>>;

struct Follow<T> {
    client: Client,
    place: Place<T>,
    /// Which of the kind's paths.
    path: usize,
    /// Whether the next list is by a watch.
    streams: bool,
    /// Whether the server refused lists by watches.
    plain: bool,
    pause: Duration,
    waits: Waits,
}

/// How long to wait after failures, by what failed.
struct Waits {
    refused: Backoff,
    away: Backoff,
}

impl Default for Waits {
    fn default() -> Self {
        Waits { refused: Backoff::new(FIRST, MOST), away: Backoff::new(FIRST, AWAY) }
    }
}

impl Waits {
    fn after(&mut self, trouble: &Trouble) -> Duration {
        match trouble {
            Trouble::Away(_) => self.away.pause(),
            _ => self.refused.pause(),
        }
    }
}

enum Place<T> {
    /// A list begins.
    Begin,
    /// A list by a watch is under way.
    Streaming(Events<T>),
    /// A list by pages is under way: what is left of one, and the next one's token or the list's version.
    Page { items: std::vec::IntoIter<T>, then: Then },
    /// A watch begins after this version.
    Resume(String),
    /// A watch is under way; it has told everything up to this version.
    Watching { version: String, events: Events<T>, began: Instant },
}

enum Then {
    First,
    More(String),
    Done(String),
}

#[derive(Deserialize)]
struct Page<T> {
    metadata: ListMeta,
    items: Vec<T>,
}

impl<T: Thin> Follow<T> {
    async fn step(&mut self) -> Told {
        loop {
            if !self.pause.is_zero() {
                tokio::time::sleep(std::mem::take(&mut self.pause)).await;
            }
            let place = std::mem::replace(&mut self.place, Place::Begin);
            let (told, place) = self.advance(place).await;
            self.place = place;
            if let Some(told) = told {
                return told;
            }
        }
    }

    async fn advance(&mut self, place: Place<T>) -> (Option<Told>, Place<T>) {
        match place {
            Place::Begin if self.streams => match watch(self.client.clone(), self.path(), "", true).await {
                Ok(events) => (Some(Told::Begun), Place::Streaming(events)),
                Err(trouble) => self.failed(At::Streaming, trouble, None),
            },
            Place::Begin => {
                let nothing = Vec::new().into_iter();
                (Some(Told::Begun), Place::Page { items: nothing, then: Then::First })
            }
            Place::Streaming(events) => self.stream(events).await,
            Place::Page { mut items, then } => match (items.next(), then) {
                (Some(object), then) => (Some(seen(object)), Place::Page { items, then }),
                (None, Then::Done(version)) => {
                    self.waits = Waits::default();
                    (Some(Told::Listed), Place::Resume(version))
                }
                (None, Then::First) => self.page(None).await,
                (None, Then::More(token)) => self.page(Some(token)).await,
            },
            Place::Resume(version) => match watch(self.client.clone(), self.path(), &version, false).await {
                Ok(events) => (Some(Told::Alive), Place::Watching { version, events, began: Instant::now() }),
                Err(trouble) => self.failed(At::Beginning, trouble, Some(version)),
            },
            Place::Watching { version, events, began } => self.follow(version, events, began).await,
        }
    }

    async fn stream(&mut self, mut events: Events<T>) -> (Option<Told>, Place<T>) {
        match next(&mut events).await {
            Ok(Some(WatchEvent::Added(object) | WatchEvent::Modified(object))) => {
                (Some(seen(object)), Place::Streaming(events))
            }
            Ok(Some(WatchEvent::Deleted(object))) => (Some(gone(&object)), Place::Streaming(events)),
            Ok(Some(WatchEvent::Bookmark(mark))) if mark.metadata.annotations.contains_key(INITIAL_END) => {
                self.waits = Waits::default();
                let version = mark.metadata.resource_version;
                (Some(Told::Listed), Place::Watching { version, events, began: Instant::now() })
            }
            Ok(Some(WatchEvent::Bookmark(_))) => (None, Place::Streaming(events)),
            Ok(Some(WatchEvent::Error(status))) => {
                self.failed(At::Streaming, Trouble::of_status(&status), None)
            }
            Ok(None) => {
                let trouble = Trouble::Away("the list broke off".to_owned());
                self.failed(At::Streaming, trouble, None)
            }
            Err(trouble) => self.failed(At::Streaming, trouble, None),
        }
    }

    async fn page(&mut self, token: Option<String>) -> (Option<Told>, Place<T>) {
        let params = ListParams { limit: Some(PAGE), continue_token: token, ..ListParams::default() };
        let page = match timeout(PAGING, list(self.client.clone(), self.path(), params)).await {
            Ok(Ok(page)) => page,
            Ok(Err(error)) => return self.failed(At::Paging, Trouble::of(&error), None),
            Err(_) => return self.failed(At::Paging, silent(PAGING), None),
        };
        let some = |text: Option<String>| text.filter(|t| !t.is_empty());
        let then = match (some(page.metadata.continue_), some(page.metadata.resource_version)) {
            (Some(token), _) => Then::More(token),
            (None, Some(version)) => Then::Done(version),
            (None, None) => {
                let trouble = Trouble::Other("the list has no resourceVersion".to_owned());
                return self.failed(At::Paging, trouble, None);
            }
        };
        (None, Place::Page { items: page.items.into_iter(), then })
    }

    async fn follow(
        &mut self,
        version: String,
        mut events: Events<T>,
        began: Instant,
    ) -> (Option<Told>, Place<T>) {
        let (told, version) = match next(&mut events).await {
            Ok(Some(WatchEvent::Added(object) | WatchEvent::Modified(object))) => {
                let version = object.metadata().resource_version.clone();
                (Some(seen(object)), version)
            }
            Ok(Some(WatchEvent::Deleted(object))) => {
                (Some(gone(&object)), object.metadata().resource_version.clone())
            }
            Ok(Some(WatchEvent::Bookmark(mark))) => (None, mark.metadata.resource_version),
            Ok(Some(WatchEvent::Error(status))) => {
                return self.failed(At::Watching, Trouble::of_status(&status), Some(version));
            }
            Ok(None) => {
                // As it should after its time; one that ends at once must not be begun at once.
                if began.elapsed() < LASTED {
                    self.pause = self.waits.refused.pause();
                }
                return (None, Place::Resume(version));
            }
            Err(trouble) => return self.failed(At::Watching, trouble, Some(version)),
        };
        self.waits = Waits::default();
        (told, Place::Watching { version, events, began })
    }

    fn path(&self) -> &'static str {
        let paths = T::KIND.paths();
        paths[self.path % paths.len()]
    }

    /// After a failure: says so where that is news, and goes on after a pause.
    fn failed(&mut self, at: At, trouble: Trouble, version: Option<String>) -> (Option<Told>, Place<T>) {
        let Answer { next, pages, moved, told } = answer(at, &trouble);
        tracing::debug!(resource = T::KIND.resource(), ?at, ?trouble, "listing or watching failed");
        if trouble == Trouble::Expired {
            tracing::info!(resource = T::KIND.resource(), "the watch expired, listing anew");
        }
        // Pages for the next list; for ever where the server says that it knows nothing else.
        self.streams = !pages && (self.streams || !self.plain);
        self.plain |= pages && trouble == Trouble::Unsupported;
        self.path += usize::from(moved);
        self.pause = self.waits.after(&trouble);
        // With several paths the other one may do: only when none does, it is absent.
        let paths = T::KIND.paths().len();
        let hushed = moved && !self.path.is_multiple_of(paths);
        let told = (told && !hushed).then(|| Told::Failed(trouble.sentence(T::KIND, at)));
        let place = match (next, version) {
            (Next::Resume, Some(version)) => Place::Resume(version),
            _ => Place::Begin,
        };
        (told, place)
    }
}

async fn list<T: Thin>(client: Client, path: &str, params: ListParams) -> kube::Result<Page<T>> {
    let request = Request::new(path).list(&params).map_err(kube::Error::BuildRequest)?;
    client.request::<Page<T>>(request).await
}

async fn watch<T: Thin>(
    client: Client,
    path: &str,
    version: &str,
    initial: bool,
) -> Result<Events<T>, Trouble> {
    let params = WatchParams {
        timeout: u32::try_from(WATCH.as_secs()).ok(),
        bookmarks: true,
        send_initial_events: initial,
        ..WatchParams::default()
    };
    let request = Request::new(path).watch(&params, version).map_err(kube::Error::BuildRequest);
    let request = request.map_err(|error| Trouble::of(&error))?;
    match timeout(REQUEST, client.request_events::<T>(request)).await {
        Ok(Ok(events)) => Ok(Box::pin(events)),
        Ok(Err(error)) => Err(Trouble::of(&error)),
        Err(_) => Err(silent(REQUEST)),
    }
}

/// The next event, or that none came in a time in which the server should have ended the watch.
async fn next<T>(events: &mut Events<T>) -> Result<Option<WatchEvent<T>>, Trouble> {
    const SILENCE: Duration = WATCH.saturating_add(REQUEST);
    match timeout(SILENCE, events.next()).await {
        Ok(Some(Ok(event))) => Ok(Some(event)),
        Ok(Some(Err(error))) => Err(Trouble::of(&error)),
        Ok(None) => Ok(None),
        Err(_) => Err(silent(SILENCE)),
    }
}

fn silent(span: Duration) -> Trouble {
    Trouble::Away(format!("the API server has not answered for {span:?}"))
}

fn seen<T: Thin>(object: T) -> Told {
    let name = object.metadata().object_name();
    let version = object.metadata().resource_version.clone();
    Told::Object(Box::new(Seen::new(T::KIND, name, &version, object.part())))
}

fn gone<T: Thin>(object: &T) -> Told {
    Told::Gone(object.metadata().object_name())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u16, cause: &str) -> Status {
        let status = serde_json::json!({
            "code": code, "message": "said", "details": {"causes": [{"reason": cause}]},
        });
        serde_json::from_value(status).unwrap()
    }

    #[test]
    fn troubles_are_told_apart() {
        let other = |code: u16| Trouble::Other(format!("{code}: said"));
        let cases = [
            (status(410, ""), Trouble::Expired),
            (status(504, "ResourceVersionTooLarge"), Trouble::Expired),
            (status(504, ""), other(504)),
            (status(404, ""), Trouble::Absent),
            (status(422, ""), Trouble::Unsupported),
            (status(403, ""), Trouble::Forbidden("said".to_owned())),
            (status(429, ""), other(429)),
        ];
        for (status, expected) in cases {
            assert_eq!(Trouble::of_status(&status), expected);
        }
    }

    #[test]
    fn what_comes_after_a_failure() {
        let plain = |next, told| Answer { next, pages: false, moved: false, told };
        let other = Trouble::Other(String::new());
        let forbidden = Trouble::Forbidden(String::new());
        let cases = [
            // A watch that is too old is listed anew, and nobody need know.
            (At::Watching, &Trouble::Expired, plain(Next::List, false)),
            (At::Beginning, &Trouble::Expired, plain(Next::List, false)),
            // A connection that broke is made again from where it was; only failing in that is told.
            (At::Watching, &other, plain(Next::Resume, false)),
            (At::Beginning, &other, plain(Next::Resume, true)),
            (At::Paging, &other, plain(Next::List, true)),
            (At::Streaming, &other, Answer { pages: true, ..plain(Next::List, true) }),
            (At::Streaming, &Trouble::Unsupported, Answer { pages: true, ..plain(Next::List, false) }),
            (At::Beginning, &forbidden, plain(Next::Resume, true)),
            (At::Streaming, &forbidden, plain(Next::List, true)),
            (At::Streaming, &Trouble::Absent, Answer { moved: true, ..plain(Next::List, true) }),
        ];
        for (at, trouble, expected) in cases {
            assert_eq!(answer(at, trouble), expected, "{at:?} {trouble:?}");
        }
    }

    #[test]
    fn who_comes_back_is_noticed_within_a_second_and_asked_gently() {
        let mut waits = Waits::default();
        let away: Vec<Duration> = (0..60).map(|_| waits.after(&Trouble::Away(String::new()))).collect();
        assert!(away.iter().all(|wait| *wait <= AWAY), "{away:?}");
        assert!(away[10..].iter().any(|wait| *wait > AWAY / 2), "{away:?}");
        let refused: Vec<Duration> = (0..60).map(|_| waits.after(&Trouble::Other(String::new()))).collect();
        assert!(refused[0] <= FIRST && refused[10..].iter().any(|wait| *wait > AWAY), "{refused:?}");
    }

    #[test]
    fn a_refusal_names_resource_and_verb() {
        let said = Trouble::Forbidden("no".to_owned()).sentence(Kind::Pod, At::Beginning);
        assert_eq!(said, "this agent may not watch pods (its role needs list and watch): no");
    }
}
