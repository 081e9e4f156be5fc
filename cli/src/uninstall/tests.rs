use super::*;
use kube::client::Body;
use serde_json::Value;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

/// What an API server was asked, as `VERB name` or `LIST token`.
type Asked = Arc<Mutex<Vec<String>>>;

/// Four ServiceImports in two pages, of which the second one is forgotten once.
fn api_server(asked: Asked) -> Client {
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let (status, answer) = answer(&request, &asked);
        let response =
            http::Response::builder().status(status).body(Body::from(answer.to_string().into_bytes()));
        async move { Ok::<_, Infallible>(response.unwrap()) }
    });
    Client::new(service, "default")
}

fn import(name: &str) -> Value {
    let entry = json!({"manager": MANAGER, "operation": "Apply"});
    let labels = json!({"app.kubernetes.io/managed-by": MANAGER});
    json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
        "metadata": {"name": name, "namespace": "shop", "uid": name, "labels": labels, "managedFields": [entry]}})
}

fn answer(request: &http::Request<Body>, asked: &Asked) -> (u16, Value) {
    let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
    let mut asked = asked.lock().unwrap();
    if request.method() == http::Method::DELETE {
        asked.push(format!("DELETE {}", path.rsplit('/').next().unwrap()));
        return (200, json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Success"}));
    }
    if !path.ends_with("/serviceimports") {
        let resources = json!([{"name": "serviceimports", "singularName": "", "namespaced": true,
            "kind": "ServiceImport", "verbs": []}]);
        return (200, json!({"kind": "APIResourceList", "groupVersion": "x", "resources": resources}));
    }
    assert!(query.contains("limit=500"), "{query}");
    let token = query.split('&').find_map(|pair| pair.strip_prefix("continue=")).unwrap_or_default();
    asked.push(format!("LIST {token}"));
    let (names, next) = match (token, asked.iter().filter(|a| *a == "LIST more").count()) {
        ("", 0) => (["a", "b"], "more"),
        ("", _) => (["c", "d"], "end"),
        ("end", _) => (["e", "f"], ""),
        _ => {
            let status = json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
                "message": "The provided continue parameter is too old", "reason": "Expired", "code": 410});
            return (410, status);
        }
    };
    let list = json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList",
        "metadata": {"continue": next}, "items": names.map(import)});
    (200, list)
}

#[tokio::test]
async fn a_page_is_deleted_before_the_next_one_is_asked_for() {
    let asked = Asked::default();
    let cleaner = Cleaner { client: api_server(asked.clone()), namespace: "sealane-system".parse().unwrap() };
    let (kind, label) = &LABELLED[0];
    cleaner.delete_labelled(kind, label).await.unwrap();
    let expected = [
        "LIST ",
        "DELETE a",
        "DELETE b",
        "LIST more",
        "LIST ",
        "DELETE c",
        "DELETE d",
        "LIST end",
        "DELETE e",
        "DELETE f",
    ];
    assert_eq!(*asked.lock().unwrap(), expected);
}
