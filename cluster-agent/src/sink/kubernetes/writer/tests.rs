use super::super::events::Limiter;
use super::super::seen::Digest;
use super::*;
use http::{Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::json;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use tokio::time::Instant;

#[test]
fn a_quota_and_a_webhook_refuse_one_step_and_a_busy_api_server_all_of_them() {
    let answer = |code, message: &str| Status { code, message: message.to_owned(), ..Status::default() };
    let judged = |status: Status| (is_refusal(&status), went(Some(&status)));
    assert_eq!(judged(answer(403, "exceeded quota: small")), (true, Went::Badly));
    assert_eq!(judged(answer(422, "endpoints: Too many")), (true, Went::Badly));
    assert_eq!(judged(answer(500, "failed calling webhook \"guard\"")), (true, Went::Badly));
    assert_eq!(judged(answer(409, "already exists")), (false, Went::Badly));
    assert_eq!(judged(answer(429, "too many requests")), (false, Went::Nowhere));
    assert_eq!(judged(answer(500, "etcdserver: leader changed")), (false, Went::Nowhere));
    assert_eq!(judged(answer(503, "unavailable")), (false, Went::Nowhere));
    assert_eq!(went(None), Went::Nowhere);
}

/// An API server that refuses every slice that is to be made; the requests that it got.
fn quota(asked: &Arc<Mutex<Vec<String>>>) -> Client {
    let asked = asked.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
        let name = path.split("/shop/").last().unwrap_or_default().to_owned();
        asked.lock().unwrap().push(format!("{method} {name}"));
        let (code, body) = match method.as_str() {
            "GET" => {
                (404, json!({ "kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404 }))
            }
            "PATCH" if name.starts_with("endpointslices") => {
                let message = "exceeded quota: small";
                (403, json!({ "kind": "Status", "status": "Failure", "message": message, "code": 403 }))
            }
            _ => {
                let metadata =
                    json!({ "name": "web", "namespace": "shop", "uid": "u", "resourceVersion": "8" });
                (200, json!({ "apiVersion": "v1", "kind": "Any", "metadata": metadata }))
            }
        };
        let answer = Response::builder().status(code).body(Body::from(body.to_string().into_bytes()));
        async move { Ok::<_, Infallible>(answer.unwrap()) }
    });
    Client::new(service, "shop")
}

fn key(kind: Kind, object: &str) -> ObjectKey {
    ObjectKey { kind, namespace: "shop".parse().unwrap(), name: object.to_owned() }
}

fn apply(key: ObjectKey, part: Part, over: Option<&str>) -> Effect {
    let body = json!({ "metadata": { "name": key.name, "namespace": "shop" } });
    let digest = Digest::of(key.kind, part, &body);
    Effect::Apply(Apply { key, part, body, digest, content: digest, over: over.map(str::to_owned) })
}

#[tokio::test]
async fn a_refused_step_keeps_back_only_what_depends_on_it() {
    let asked = Arc::default();
    let resources = Resources::new(quota(&asked), "v1beta1");
    let teller =
        Teller::new(resources.clone(), "replica", Arc::new(Mutex::new(Limiter::new(Instant::now()))));
    let writer = Writer { resources, teller, leadership: Leadership::alone() };
    let delete = |name: &str, moves| Effect::Delete {
        key: key(Kind::Slice, name),
        uid: "u".to_owned(),
        version: "1".to_owned(),
        moves,
    };
    let effects = vec![
        apply(key(Kind::Slice, "new"), Part::Main, None),
        apply(key(Kind::Import, "web"), Part::Status, Some("7")),
        delete("alive", true),
        delete("dead", false),
    ];
    let done = writer.work("shop/web".parse().unwrap(), effects).await;
    let expected = [
        "GET endpointslices/new",
        "PATCH endpointslices/new",
        "PATCH serviceimports/web/status",
        "DELETE endpointslices/dead",
    ];
    assert_eq!(*asked.lock().unwrap(), expected);
    let refused: Vec<String> = done
        .outcomes
        .iter()
        .filter_map(|outcome| match outcome {
            Outcome::Refused { target, error, .. } => Some(format!("{}: {error}", target.0)),
            _ => None,
        })
        .collect();
    assert_eq!(refused, ["EndpointSlice shop/new: exceeded quota: small"]);
}
