//! The real answers of every route, held against the OpenAPI document that the server serves.

use super::bench::{Bench, Session, eventually, subscribe};
use sealane_proto::federation::v1 as pb;
use serde_json::Value;
use std::collections::BTreeSet;

/// Checks a value against a schema of the subset that the document uses; what a schema does not name is refused.
struct Schemas<'a>(&'a Value);

impl Schemas<'_> {
    fn resolve<'b>(&'b self, schema: &'b Value) -> &'b Value {
        match schema.get("$ref").and_then(Value::as_str) {
            Some(reference) => {
                let name = reference.strip_prefix("#/components/schemas/").expect("a local reference");
                self.resolve(&self.0["components"]["schemas"][name])
            }
            None => schema,
        }
    }

    fn check(&self, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
        let schema = self.resolve(schema);
        if schema.is_null() {
            return Err(format!("{at}: no such schema"));
        }
        if let Some(variants) = schema.get("oneOf").or_else(|| schema.get("anyOf")).and_then(Value::as_array)
        {
            let fits = variants.iter().any(|v| self.check(v, value, at).is_ok());
            return fits.then_some(()).ok_or_else(|| format!("{at}: {value} fits no variant of {schema}"));
        }
        if let Some(values) = schema.get("enum").and_then(Value::as_array) {
            return values
                .contains(value)
                .then_some(())
                .ok_or_else(|| format!("{at}: {value} is not of {values:?}"));
        }
        self.kind(schema, value, at)?;
        match value {
            Value::Object(_) => self.object(schema, value, at),
            Value::Array(items) => items
                .iter()
                .enumerate()
                .try_for_each(|(n, v)| self.check(&schema["items"], v, &format!("{at}[{n}]"))),
            _ => Ok(()),
        }
    }

    fn kind(&self, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
        let kinds: BTreeSet<&str> = match schema.get("type") {
            Some(Value::String(kind)) => BTreeSet::from([kind.as_str()]),
            Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).collect(),
            _ if schema.get("allOf").is_some() => BTreeSet::from(["object"]),
            _ => return Err(format!("{at}: the schema says no type: {schema}")),
        };
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        kinds.contains(kind).then_some(()).ok_or_else(|| format!("{at}: {value} is {kind}, not {kinds:?}"))
    }

    fn object(&self, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
        let parts: Vec<&Value> = match schema.get("allOf").and_then(Value::as_array) {
            Some(parts) => parts.iter().map(|p| self.resolve(p)).collect(),
            None => vec![schema],
        };
        for name in parts.iter().filter_map(|p| p["required"].as_array()).flatten().filter_map(Value::as_str)
        {
            value.get(name).ok_or_else(|| format!("{at}.{name}: is required and missing"))?;
        }
        for (name, inner) in value.as_object().into_iter().flatten() {
            let place = format!("{at}.{name}");
            let stated = parts.iter().find_map(|p| p["properties"].get(name));
            let any = parts.iter().find_map(|p| p.get("additionalProperties").filter(|a| a.is_object()));
            let schema = stated.or(any).ok_or_else(|| format!("{place}: is not in the document"))?;
            self.check(schema, inner, &place)?;
        }
        Ok(())
    }

    /// The schema of an answer.
    fn answer(&self, path: &str, status: u16) -> &Value {
        let responses = &self.0["paths"][path]["get"]["responses"];
        let one = responses.get(status.to_string()).unwrap_or(&responses["4XX"]);
        &one["content"]["application/json"]["schema"]
    }
}

async fn answers(bench: &Bench, document: &Value, cases: &[(&str, &str, u16)]) {
    let schemas = Schemas(document);
    for (path, asked, expected) in cases {
        let (status, body) = bench.get(1, asked).await;
        let text = String::from_utf8_lossy(&body).into_owned();
        assert_eq!(status, *expected, "{asked}: {text}");
        let value: Value = serde_json::from_slice(&body).unwrap();
        schemas.check(schemas.answer(path, status), &value, asked).unwrap_or_else(|e| panic!("{e}\n{text}"));
    }
    let documented: BTreeSet<&str> =
        document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    let asked: BTreeSet<&str> = cases.iter().map(|(path, ..)| *path).collect();
    assert_eq!(asked, documented, "every path of the document is asked for");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_as_the_document_says() {
    let bench = Bench::new().await;
    let (east, west) = (bench.member(1, "east").await, bench.member(1, "west").await);
    let _east = east.publish(&bench, 1, 1, &["shop/cart"]).await;
    let _west = west.publish(&bench, 1, 2, &["shop/cart", "shop/pay"]).await;
    // Another agent under west's identity: it is refused, and west's session names it.
    let mut other = Session::open(&bench, 1, &west, 3, 9).await.unwrap();
    other.answer().await.unwrap_err();
    let mut watching = east.watch(&bench, 1, subscribe(&bench)).await.unwrap();
    watching.synced().await;
    let (_, document) = bench.get(1, "/api/v1/openapi.json").await;
    let document: Value = serde_json::from_slice(&document).unwrap();
    answers(
        &bench,
        &document,
        &[
            ("/api/v1/status", "/api/v1/status", 200),
            ("/api/v1/status", "/api/v1/status?consistent=true", 200),
            ("/api/v1/status", "/api/v1/status?consistent=perhaps", 400),
            ("/api/v1/servers", "/api/v1/servers", 200),
            ("/api/v1/clusters", "/api/v1/clusters", 200),
            ("/api/v1/clusters/{name}", "/api/v1/clusters/west", 200),
            ("/api/v1/clusters/{name}", "/api/v1/clusters/north", 404),
            ("/api/v1/clusters/{name}", "/api/v1/clusters/NORTH", 400),
            ("/api/v1/services", "/api/v1/services", 200),
            ("/api/v1/services/{namespace}/{name}", "/api/v1/services/shop/cart", 200),
            ("/api/v1/services/{namespace}/{name}", "/api/v1/services/shop/none", 404),
            (
                "/api/v1/services/{namespace}/{name}/endpoints",
                "/api/v1/services/shop/cart/endpoints?from=east",
                200,
            ),
            ("/api/v1/services/{namespace}/{name}/endpoints", "/api/v1/services/shop/cart/endpoints", 400),
            (
                "/api/v1/services/{namespace}/{name}/endpoints",
                "/api/v1/services/shop/x/endpoints?from=east",
                404,
            ),
            ("/api/v1/explain/{namespace}/{name}", "/api/v1/explain/shop/cart?from=east", 200),
            ("/api/v1/explain/{namespace}/{name}", "/api/v1/explain/shop/none?from=east", 200),
            ("/api/v1/explain/{namespace}/{name}", "/api/v1/explain/shop/cart?from=north", 404),
        ],
    )
    .await;
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_and_an_agent_get_nothing_but_probes() {
    let bench = Bench::new().await;
    let east = bench.member(1, "east").await;
    for identity in [None, Some(&east.identity)] {
        let (status, body) = bench.get_as(1, "/api/v1/status", identity).await;
        let error: crate::rest::types::ApiError = serde_json::from_slice(&body).unwrap();
        assert_eq!((status, error.code), (403, crate::rest::types::ErrorCode::Forbidden));
        assert_eq!(bench.get_as(1, "/livez", identity).await.0, 200);
        assert_eq!(bench.get_as(1, "/readyz", identity).await.0, 200);
    }
    let (status, body) = bench.get(1, "/nowhere").await;
    let error: crate::rest::types::ApiError = serde_json::from_slice(&body).unwrap();
    assert_eq!((status, error.code), (404, crate::rest::types::ErrorCode::NotFound));
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_shows_what_agents_say_of_the_service() {
    let bench = Bench::new().await;
    let (east, west) = (bench.member(1, "east").await, bench.member(1, "west").await);
    let mut watching = west.watch(&bench, 1, subscribe(&bench)).await.unwrap();
    watching.synced().await;
    let revision = watching.token.revision;
    let error = "shop/cart: somebody's object is in the way\nshop/web: another one".to_owned();
    let kind = Some(pb::watch_request::Kind::Applied(pb::Applied { revision, error }));
    watching.requests.send(pb::WatchRequest { kind }).await.unwrap();
    let expected = crate::rest::types::Trouble {
        cluster: "west".to_owned(),
        message: "somebody's object is in the way".to_owned(),
    };
    let explained = eventually("it is shown", || async {
        let (_, body) = bench.get(1, "/api/v1/explain/shop/cart?from=east").await;
        let explained: crate::rest::types::Explanation = serde_json::from_slice(&body).unwrap();
        (!explained.troubles.is_empty()).then_some(explained)
    })
    .await;
    assert_eq!(explained.troubles, [expected]);
    drop(east);
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_explain_chooses_is_what_the_view_holds() {
    let bench = Bench::new().await;
    let (east, west) = (bench.member(1, "east").await, bench.member(1, "west").await);
    let _east = east.publish(&bench, 1, 1, &["shop/cart"]).await;
    let _west = west.publish(&bench, 1, 2, &["shop/cart"]).await;
    let mut watching = east.watch(&bench, 1, subscribe(&bench)).await.unwrap();
    watching.synced().await;
    let sent: Vec<_> =
        watching.import("shop/cart").unwrap().candidates.iter().map(|c| c.cluster.to_string()).collect();
    let (_, body) = bench.get(1, "/api/v1/explain/shop/cart?from=east").await;
    let explained: crate::rest::types::Explanation = serde_json::from_slice(&body).unwrap();
    let chosen: Vec<_> =
        explained.decisions.iter().filter_map(|d| d.candidate.as_ref()).map(|c| c.cluster.clone()).collect();
    assert_eq!(chosen, sent);
    assert!(explained.decisions.iter().any(|d| d.cluster == "west"), "west is explained too: {explained:#?}");
    let (_, body) = bench.get(1, "/api/v1/services/shop/cart/endpoints?from=east").await;
    let listed: crate::rest::types::Endpoints = serde_json::from_slice(&body).unwrap();
    assert_eq!(listed.candidates.iter().map(|c| c.cluster.clone()).collect::<Vec<_>>(), sent);
    bench.stop().await;
}
