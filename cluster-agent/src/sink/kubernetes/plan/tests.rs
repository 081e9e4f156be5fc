mod api;
mod contested;
mod refused;

use super::*;
use crate::catalog::endpoint_id;
use crate::config::Common;
use crate::config::tests::{World, catalog, exported, held, import, name, port, shard};
use crate::desired::Edition;
use crate::sink::kubernetes::slices::KUBE_PROXY;
use api::Api;
use sealane_core::command::{Refusal, RefusalCode};
use sealane_core::endpoint::Locality;
use sealane_core::reach::Unreached;
use sealane_core::service::{Port, SessionAffinity};
use sealane_core::view::{Candidate, Conflict, ConflictField, ExportStatus, Import, Path, Tier, ViewItem};
use std::sync::Arc;

/// 2026-01-02T03:04:05Z.
const NOW: Millis = Millis(1_767_323_045_000);
const V4: IpFamily = IpFamily::V4;
const V6: IpFamily = IpFamily::V6;

fn setting() -> Setting {
    Setting {
        cluster: name("east"),
        families: vec![V4],
        api: "multicluster.x-k8s.io/v1beta1".to_owned(),
        missing: Missing::default(),
        federation: FederationId([7; 16]),
        revision: Revision { generation: 1, index: 7 },
        now: NOW,
    }
}

fn at(cluster: &str, address: &str, ports: &[(&str, u16)]) -> Candidate {
    let path = Path::Direct {
        id: endpoint_id(address),
        address: address.parse().unwrap(),
        ports: ports.iter().map(|(n, p)| (name(n), *p)).collect(),
        locality: Locality::default(),
        spiffe_id: None,
        inbound_port: None,
        hostname: None,
    };
    let tier = if cluster == "east" { Tier::Local } else { Tier::Remote };
    Candidate { cluster: name(cluster), tier, path }
}

fn sources_of(items: Vec<ViewItem>, shards: &[(&str, crate::catalog::Shard)]) -> Sources {
    let mut world = World::new(held(7, items), catalog(shards));
    let common = Arc::new(world.make(&Common::default()));
    Sources {
        common,
        exports: world.held.items.clone(),
        refused: Arc::default(),
        confirmed: Edition::all(&world.catalog.shards),
    }
}

/// A service that only others export.
fn sources(change: impl FnOnce(&mut Import)) -> Sources {
    let mut web = Import::clone(&import("shop/web", vec![at("west", "10.2.0.1", &[("http", 8080)])]));
    web.ip_families = vec![V4];
    change(&mut web);
    sources_of(vec![ViewItem::Import(Arc::new(web))], &[])
}

fn plan_of(api: &Api, sources: &Sources, setting: &Setting, learnt: &Learnt) -> Vec<Effect> {
    plan(sources, setting, &name("shop/web"), &api.scene("shop/web"), learnt)
}

/// Plans and takes steps until nothing is left to do. Gives the steps in short.
fn settle(api: &mut Api, sources: &Sources, setting: &Setting, learnt: &mut Learnt) -> Vec<String> {
    let mut steps = Vec::new();
    for _ in 0..10 {
        let effects = plan_of(api, sources, setting, learnt);
        if !effects.iter().any(|e| !matches!(e, Effect::Tell(_))) {
            return steps;
        }
        for effect in effects {
            steps.push(short(&effect));
            if let Err(taken) = api.take(effect) {
                learnt.taken = Some(taken);
                break;
            }
        }
    }
    panic!("it does not settle: {steps:#?}");
}

fn short(effect: &Effect) -> String {
    match effect {
        Effect::Apply(apply) => {
            let verb = if apply.over.is_none() { "make" } else { "apply" };
            let kind = apply.key.kind.as_str();
            if apply.part == Part::Status {
                format!("{verb} {kind} status")
            } else {
                format!("{verb} {kind}")
            }
        }
        Effect::Delete { key, .. } => format!("delete {}", key.kind.as_str()),
        Effect::Tell(note) => format!("tell {}", note.reason),
    }
}

fn key(kind: Kind, object: &str) -> ObjectKey {
    ObjectKey { kind, namespace: name("shop"), name: object.to_owned() }
}

/// What is left of an object without what the API server adds.
fn plain(object: &Value) -> Value {
    let mut object = object.clone();
    for field in ["managedFields", "resourceVersion", "uid", "generation", "namespace"] {
        object["metadata"].as_object_mut().unwrap().remove(field);
    }
    object
}

fn slices_of(api: &Api) -> Vec<Value> {
    api.objects.iter().filter(|(key, _)| key.kind == Kind::Slice).map(|(_, slice)| plain(slice)).collect()
}

/// For each slice its cluster, its addresses and ports, and whether kube-proxy may use it.
fn served(api: &Api) -> Vec<String> {
    let mut served: Vec<String> = slices_of(api)
        .iter()
        .map(|slice| {
            let labels = &slice["metadata"]["labels"];
            let cluster = labels["multicluster.kubernetes.io/source-cluster"].as_str().unwrap();
            let addresses: Vec<&str> = slice["endpoints"]
                .as_array()
                .unwrap()
                .iter()
                .map(|e| e["addresses"][0].as_str().unwrap())
                .collect();
            let ports: Vec<String> = slice["ports"]
                .as_array()
                .unwrap()
                .iter()
                .map(|p| format!("{}={}", p["name"].as_str().unwrap(), p["port"]))
                .collect();
            let chosen = if labels[KUBE_PROXY].is_string() { "chosen" } else { "known" };
            format!("{cluster} {} {} {chosen}", addresses.join("+"), ports.join("+"))
        })
        .collect();
    served.sort();
    served
}

#[test]
#[allow(clippy::too_many_lines)] // whole objects, to be read as such
fn an_import_with_its_service_and_slices_as_a_whole() {
    let mut api = Api::default();
    let sources = sources(|web| {
        web.session_affinity = SessionAffinity::ClientIp;
        web.session_affinity_timeout_s = Some(10);
        web.traffic_distribution = Some("PreferSameZone".to_owned());
        web.labels = BTreeMap::from([("team".to_owned(), "a".to_owned())]);
    });
    let steps = settle(&mut api, &sources, &setting(), &mut Learnt::default());
    assert_eq!(
        steps,
        [
            "make ServiceImport",
            "make Service",
            "apply ServiceImport status",
            "apply ServiceImport",
            "make EndpointSlice",
            "apply ServiceImport status",
        ]
    );
    let derived = derived::name(&name("shop/web"));
    let uid = |kind, object: &str| api.objects[&key(kind, object)]["metadata"]["uid"].clone();
    let import = plain(&api.objects[&key(Kind::Import, "web")]);
    let expected = json!({
        "apiVersion": "multicluster.x-k8s.io/v1beta1",
        "kind": "ServiceImport",
        "metadata": {
            "name": "web",
            "labels": { "app.kubernetes.io/managed-by": "sealane-agent", "team": "a" },
            "annotations": {
                "multicluster.kubernetes.io/derived-service": derived,
                "sealane.dev/federation": "07070707070707070707070707070707",
                "sealane.dev/revision": "1.7",
            },
        },
        "spec": {
            "type": "ClusterSetIP",
            "ports": [{ "name": "http", "protocol": "TCP", "port": 80 }],
            "ips": ["10.96.0.1"],
            "ipFamilies": ["IPv4"],
            "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": { "clientIP": { "timeoutSeconds": 10 } },
            "internalTrafficPolicy": "Cluster",
            "trafficDistribution": "PreferSameZone",
        },
        "status": {
            "clusters": [{ "cluster": "west" }],
            "conditions": [{
                "type": "Ready", "status": "True", "observedGeneration": 2, "reason": "Ready",
                "lastTransitionTime": "2026-01-02T03:04:05Z", "message": "exported by west",
            }],
            "endpointSliceObjects": "Present",
        },
    });
    assert_eq!(import, expected);
    let service = plain(&api.objects[&key(Kind::Service, &derived)]);
    let expected = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": derived,
            "labels": {
                "app.kubernetes.io/managed-by": "sealane-agent",
                "multicluster.kubernetes.io/service-name": "web",
            },
            "annotations": {
                "sealane.dev/federation": "07070707070707070707070707070707", "sealane.dev/revision": "1.7",
            },
            "ownerReferences": [{
                "apiVersion": "multicluster.x-k8s.io/v1beta1", "kind": "ServiceImport", "name": "web",
                "uid": uid(Kind::Import, "web"),
            }],
        },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": "10.96.0.1",
            "clusterIPs": ["10.96.0.1"],
            "ports": [{ "name": "http", "protocol": "TCP", "port": 80 }],
            "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack",
            "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": { "clientIP": { "timeoutSeconds": 10 } },
            "internalTrafficPolicy": "Cluster",
            "trafficDistribution": "PreferClose",
        },
    });
    assert_eq!(service, expected);
    let [slice] = &slices_of(&api)[..] else { panic!("one slice") };
    let expected = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": slice["metadata"]["name"],
            "labels": {
                "endpointslice.kubernetes.io/managed-by": "sealane-agent",
                "kubernetes.io/service-name": derived,
                "multicluster.kubernetes.io/service-name": "web",
                "multicluster.kubernetes.io/source-cluster": "west",
            },
            "annotations": {
                "sealane.dev/federation": "07070707070707070707070707070707", "sealane.dev/revision": "1.7",
            },
            "ownerReferences": [{
                "apiVersion": "v1", "kind": "Service", "name": derived, "uid": uid(Kind::Service, &derived),
            }],
        },
        "addressType": "IPv4",
        "endpoints": [{ "addresses": ["10.2.0.1"], "conditions": { "ready": true } }],
        "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
    });
    assert_eq!(*slice, expected);
    let later = Setting { revision: Revision { generation: 1, index: 9 }, ..setting() };
    let plan = plan_of(&api, &sources, &later, &Learnt::default());
    assert_eq!(plan, [], "a revision alone changes no object");
}

#[test]
fn what_is_not_imported_any_more_goes_and_what_others_hold_stays() {
    let mut api = Api::default();
    settle(&mut api, &sources(|_| {}), &setting(), &mut Learnt::default());
    let mut theirs =
        json!({ "metadata": { "labels": { "multicluster.kubernetes.io/service-name": "web" } } });
    theirs["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"] = json!("sealane-agent");
    api.others(&key(Kind::Slice, "theirs"), theirs);
    let gone = sources_of(vec![], &[]);
    let older = Setting { revision: Revision { generation: 1, index: 6 }, ..setting() };
    assert_eq!(plan_of(&api, &gone, &older, &Learnt::default()), [], "it was written at a higher revision");
    let steps = settle(&mut api, &gone, &setting(), &mut Learnt::default());
    assert_eq!(steps, ["delete ServiceImport", "delete Service", "delete EndpointSlice"]);
    assert_eq!(api.objects.keys().map(|k| k.name.as_str()).collect::<Vec<_>>(), ["theirs"]);
}

#[test]
fn a_revision_of_another_federation_is_older_whatever_its_number() {
    let mut api = Api::default();
    let (key, annotation) = (key(Kind::Import, "web"), "sealane.dev/federation");
    settle(&mut api, &sources(|_| {}), &setting(), &mut Learnt::default());
    let joined = Setting {
        federation: FederationId([8; 16]),
        revision: Revision { generation: 1, index: 2 },
        ..setting()
    };
    settle(&mut api, &sources(|_| {}), &joined, &mut Learnt::default());
    assert_eq!(
        api.objects[&key]["metadata"]["annotations"][annotation],
        json!(joined.federation.to_string())
    );
    settle(&mut api, &sources_of(vec![], &[]), &setting(), &mut Learnt::default());
    assert_eq!(api.objects.keys().filter(|key| key.kind == Kind::Import).count(), 0);

    // A former agent's, which did not say whose revision it is: it holds, and is written anew by who is as far.
    settle(&mut api, &sources(|_| {}), &setting(), &mut Learnt::default());
    let annotations = api.objects.get_mut(&key).unwrap()["metadata"]["annotations"].as_object_mut().unwrap();
    annotations.remove(annotation);
    let older = Setting { revision: Revision { generation: 1, index: 6 }, ..setting() };
    assert_eq!(plan_of(&api, &sources(|_| {}), &older, &Learnt::default()), []);
    settle(&mut api, &sources(|_| {}), &setting(), &mut Learnt::default());
    assert_eq!(
        api.objects[&key]["metadata"]["annotations"][annotation],
        json!(setting().federation.to_string())
    );
}

#[test]
fn an_object_of_a_higher_revision_is_not_overwritten() {
    let mut api = Api::default();
    settle(&mut api, &sources(|_| {}), &setting(), &mut Learnt::default());
    let older = Setting { revision: Revision { generation: 1, index: 6 }, ..setting() };
    let other = sources(|web| web.internal_traffic_policy = InternalTrafficPolicy::Local);
    assert_eq!(plan_of(&api, &other, &older, &Learnt::default()), []);
    assert!(!plan_of(&api, &other, &setting(), &Learnt::default()).is_empty());
}

#[test]
fn a_service_keeps_its_address_and_says_so_before_it_gets_another() {
    let mut api = Api::default();
    let (sources, mut learnt) = (sources(|_| {}), Learnt::default());
    settle(&mut api, &sources, &setting(), &mut learnt);
    let derived = key(Kind::Service, &derived::name(&name("shop/web")));
    let address = |api: &Api| api.objects[&derived]["spec"]["clusterIPs"].clone();
    assert_eq!(address(&api), json!(["10.96.0.1"]));

    api.objects.remove(&derived);
    assert_eq!(
        settle(&mut api, &sources, &setting(), &mut learnt),
        ["make Service", "apply ServiceImport status", "apply EndpointSlice", "apply ServiceImport status"],
        "its slices stay meanwhile, and follow it"
    );
    assert_eq!(address(&api), json!(["10.96.0.1"]));

    api.objects.remove(&derived);
    api.taken.insert("10.96.0.1".parse().unwrap());
    let steps = settle(&mut api, &sources, &setting(), &mut learnt);
    assert_eq!(
        steps,
        [
            "make Service",
            "apply ServiceImport status",
            "tell Pending",
            "make Service",
            "apply ServiceImport",
            "apply EndpointSlice",
            "apply ServiceImport status",
        ]
    );
    assert_eq!(address(&api), json!(["10.96.0.2"]));
    assert_eq!(api.objects[&key(Kind::Import, "web")]["spec"]["ips"], json!(["10.96.0.2"]));
    assert_eq!(
        api.told,
        [(
            "ServiceImport shop/web".to_owned(),
            "Pending: the address 10.96.0.1 is another Service's now; clients get a new one".to_owned()
        )]
    );
}

#[test]
fn an_address_that_an_import_has_is_never_taken_away() {
    let mut api = Api::default();
    let dual = Setting { families: vec![V4, V6], ..setting() };
    let of = |families: &[IpFamily]| {
        let families = families.to_vec();
        sources(move |web| web.ip_families = families)
    };
    let import = key(Kind::Import, "web");
    let spec = |api: &Api| {
        (api.objects[&import]["spec"]["ips"].clone(), api.objects[&import]["spec"]["ipFamilies"].clone())
    };
    let derived = key(Kind::Service, &derived::name(&name("shop/web")));
    settle(&mut api, &of(&[V6]), &dual, &mut Learnt::default());
    assert_eq!(spec(&api), (json!(["fd00::1"]), json!(["IPv6"])));
    let uid = api.objects[&derived]["metadata"]["uid"].clone();
    // What the oldest export has comes and goes; what is there stays, in its order.
    let both = (json!(["fd00::1", "10.96.0.2"]), json!(["IPv6", "IPv4"]));
    let steps: [&[IpFamily]; 5] = [&[V4, V6], &[V6, V4], &[V6], &[V4], &[]];
    for families in steps {
        settle(&mut api, &of(families), &dual, &mut Learnt::default());
        assert_eq!(spec(&api), both, "{families:?}");
    }
    assert_eq!(api.objects[&derived]["metadata"]["uid"], uid, "it was not made anew");
    api.objects.remove(&derived);
    settle(&mut api, &of(&[V4]), &dual, &mut Learnt::default());
    assert_eq!(spec(&api), both, "nor are the addresses others once it was removed");

    let ready = |api: &Api| {
        let ready = api.objects[&import]["status"]["conditions"][0].clone();
        [ready["status"].clone(), ready["reason"].clone()]
    };
    let mut api = Api::default();
    settle(&mut api, &of(&[V4]), &setting(), &mut Learnt::default());
    assert_eq!(ready(&api), [json!("True"), json!("Ready")]);
    let steps = settle(&mut api, &of(&[V6]), &setting(), &mut Learnt::default());
    assert!(steps.contains(&"tell IPFamilyNotSupported".to_owned()), "{steps:?}");
    assert_eq!(ready(&api), [json!("False"), json!("IPFamilyNotSupported")]);
    assert_eq!(spec(&api), (json!(["10.96.0.1"]), json!(["IPv4"])), "it stays though it leads nowhere now");
    settle(&mut api, &of(&[V6, V4]), &setting(), &mut Learnt::default());
    assert_eq!(ready(&api), [json!("True"), json!("Ready")]);
    assert_eq!(spec(&api), (json!(["10.96.0.1"]), json!(["IPv4"])));
}

#[test]
fn an_import_without_a_family_of_this_cluster_has_no_address() {
    let mut api = Api::default();
    let steps =
        settle(&mut api, &sources(|web| web.ip_families = vec![V6]), &setting(), &mut Learnt::default());
    assert_eq!(
        steps,
        ["make ServiceImport", "apply ServiceImport status", "tell IPFamilyNotSupported"],
        "and nothing beside it"
    );
    let ready = &api.objects[&key(Kind::Import, "web")]["status"]["conditions"][0];
    let message = "the service has IPv6 addresses, and this cluster's Services have IPv4";
    assert_eq!((&ready["status"], &ready["message"]), (&json!("False"), &json!(message)));
}

#[test]
fn endpoints_of_a_family_that_the_import_has_not_are_left_out() {
    let both = || vec![at("west", "10.2.0.1", &[("http", 8080)]), at("west", "fd00:2::1", &[("http", 8080)])];
    let of = |families: &[IpFamily], kind: ServiceType| {
        let families = families.to_vec();
        sources(move |web| {
            (web.ip_families, web.candidates, web.service_type) = (families, both(), kind);
        })
    };
    let of_address = |api: &Api| served(api).iter().map(|s| s.replace(" http=8080", "")).collect::<Vec<_>>();
    let own = ServiceType::ClusterSetIp;
    let mut api = Api::default();
    settle(&mut api, &of(&[V4], own), &setting(), &mut Learnt::default());
    assert_eq!(of_address(&api), ["west 10.2.0.1 chosen"]);
    settle(&mut api, &of(&[V4, V6], own), &setting(), &mut Learnt::default());
    assert_eq!(
        of_address(&api),
        ["west 10.2.0.1 chosen", "west fd00:2::1 chosen"],
        "the import's, though this cluster gives it no such address"
    );
    let mut api = Api::default();
    settle(&mut api, &of(&[V4], ServiceType::Headless), &setting(), &mut Learnt::default());
    assert_eq!(of_address(&api), ["west 10.2.0.1 known", "west fd00:2::1 known"], "each by its own address");
}

#[test]
fn an_import_that_leads_nowhere_is_not_ready_and_says_the_way_out() {
    let unreached = |web: &mut Import| {
        web.unreached = [(name("west"), Unreached::NoGateway)].into();
    };
    let mut api = Api::default();
    let nowhere = sources(|web| {
        web.candidates = Vec::new();
        unreached(web);
    });
    let steps = settle(&mut api, &nowhere, &setting(), &mut Learnt::default());
    assert!(steps.contains(&"tell NoGateway".to_owned()), "{steps:?}");
    let import = key(Kind::Import, "web");
    let ready = |api: &Api| api.objects[&import]["status"]["conditions"][0].clone();
    let message =
        out_of_reach(nowhere.import(&name("shop/web")).map(|o| &*o.import).unwrap()).unwrap().message;
    let found = ready(&api);
    assert_eq!(
        [&found["status"], &found["reason"], &found["message"]],
        [&json!("False"), &json!("NoGateway"), &json!(message)]
    );
    assert_eq!(api.objects[&import]["spec"]["ips"], json!(["10.96.0.1"]), "it has its address all the same");
    settle(&mut api, &sources(unreached), &setting(), &mut Learnt::default());
    assert_eq!(ready(&api)["status"], json!("True"), "one endpoint is reached");
    settle(&mut api, &sources(|web| web.candidates = Vec::new()), &setting(), &mut Learnt::default());
    assert_eq!(ready(&api)["status"], json!("True"), "no endpoint is ready anywhere: that is no fault");
}

/// The service is exported here, too, with a pod at 10.1.0.1 while it is ready.
fn here_too(ready: bool, change: impl FnOnce(&mut Import)) -> Sources {
    let mut own = shard(&["web-0"]);
    own.backends.values_mut().for_each(|backend| {
        backend.endpoint.ready = ready;
        backend.node = Some("node-1".to_owned());
    });
    let mut web = Import::clone(&import("shop/web", vec![at("west", "10.2.0.1", &[("http", 8080)])]));
    web.clusters.insert(name("east"));
    change(&mut web);
    sources_of(vec![ViewItem::Import(Arc::new(web)), exported("shop/web", &["west"])], &[("shop/web", own)])
}

#[test]
fn kube_proxy_sees_local_endpoints_while_there_are_any_and_never_none_in_between() {
    let (mut api, mut learnt) = (Api::default(), Learnt::default());
    settle(&mut api, &here_too(true, |_| {}), &setting(), &mut learnt);
    assert_eq!(served(&api), ["east 10.1.0.1 http=8080 chosen", "west 10.2.0.1 http=8080 known"]);
    let local =
        slices_of(&api).into_iter().find(|s| s["endpoints"][0]["addresses"][0] == json!("10.1.0.1")).unwrap();
    assert_eq!(local["endpoints"][0]["nodeName"], json!("node-1"));

    let effects = plan_of(&api, &here_too(false, |_| {}), &setting(), &learnt);
    let order: Vec<String> = effects.iter().map(short).collect();
    let expected = ["make EndpointSlice", "delete EndpointSlice", "delete EndpointSlice"];
    assert_eq!(order, expected, "first the others, then what is gone and what is no more only known");
    settle(&mut api, &here_too(false, |_| {}), &setting(), &mut learnt);
    assert_eq!(served(&api), ["west 10.2.0.1 http=8080 chosen"]);
    settle(&mut api, &here_too(true, |_| {}), &setting(), &mut learnt);
    assert_eq!(served(&api), ["east 10.1.0.1 http=8080 chosen", "west 10.2.0.1 http=8080 known"]);

    let bound = |web: &mut Import| web.internal_traffic_policy = InternalTrafficPolicy::Local;
    settle(&mut api, &here_too(false, bound), &setting(), &mut learnt);
    assert_eq!(served(&api), ["west 10.2.0.1 http=8080 known"], "Local means this cluster's own alone");
}

#[test]
fn each_port_goes_to_the_clusters_that_have_it() {
    let (mut api, mut learnt) = (Api::default(), Learnt::default());
    let other = Port { name: name("other"), port: 4242, ..port() };
    let sources = here_too(true, |web| {
        web.ports.push(other);
        web.candidates = vec![at("west", "10.2.0.1", &[("other", 4242), ("http", 8080)])];
    });
    settle(&mut api, &sources, &setting(), &mut learnt);
    assert_eq!(
        served(&api),
        [
            "east 10.1.0.1 http=8080 chosen",
            "west 10.2.0.1 http=8080 known",
            "west 10.2.0.1 other=4242 chosen",
        ]
    );
}

#[test]
fn hints_keep_traffic_near_where_every_endpoint_has_a_zone() {
    let zoned = |candidate: &mut Candidate, zone: &str| match &mut candidate.path {
        Path::Direct { locality, .. } => locality.zone = Some(name(zone)),
        Path::Gateway { .. } => unreachable!(),
    };
    let near = |zones: &[&str]| {
        let zones: Vec<String> = zones.iter().map(|z| (*z).to_owned()).collect();
        sources(move |web| {
            web.traffic_distribution = Some("PreferClose".to_owned());
            web.candidates =
                vec![at("west", "10.2.0.1", &[("http", 80)]), at("west", "10.2.0.2", &[("http", 80)])];
            web.candidates.iter_mut().zip(&zones).for_each(|(c, zone)| zoned(c, zone));
        })
    };
    let mut api = Api::default();
    settle(&mut api, &near(&["a", "b"]), &setting(), &mut Learnt::default());
    let hints = |api: &Api| {
        slices_of(api)[0]["endpoints"]
            .as_array()
            .unwrap()
            .iter()
            .map(|e| e["hints"].clone())
            .collect::<Vec<_>>()
    };
    let zone = |zone: &str| json!({ "forZones": [{ "name": zone }] });
    assert_eq!(hints(&api), [zone("a"), zone("b")]);
    settle(&mut api, &near(&["a"]), &setting(), &mut Learnt::default());
    assert_eq!(hints(&api), [Value::Null, Value::Null]);
}

#[test]
fn a_node_is_preferred_without_zones_too() {
    let mut web = Import::clone(&import("shop/web", vec![at("east", "10.1.0.1", &[("http", 8080)])]));
    web.ip_families = vec![V4];
    web.traffic_distribution = Some("PreferSameNode".to_owned());
    let mut mine = shard(&["web-0"]);
    mine.backends.values_mut().for_each(|backend| backend.node = Some("node-1".to_owned()));
    let sources = sources_of(vec![ViewItem::Import(Arc::new(web))], &[("shop/web", mine)]);
    let mut api = Api::default();
    settle(&mut api, &sources, &setting(), &mut Learnt::default());
    let [slice] = &slices_of(&api)[..] else { panic!("one slice") };
    assert_eq!(slice["endpoints"][0]["hints"], json!({ "forNodes": [{ "name": "node-1" }] }));
}

#[test]
fn a_headless_import_has_hostnames_and_no_address() {
    let mut api = Api::default();
    let sources = sources(|web| {
        web.service_type = ServiceType::Headless;
        if let Path::Direct { hostname, .. } = &mut web.candidates[0].path {
            *hostname = Some(name("web-0"));
        }
    });
    let steps = settle(&mut api, &sources, &setting(), &mut Learnt::default());
    assert_eq!(steps, ["make ServiceImport", "make EndpointSlice", "apply ServiceImport status"]);
    let [slice] = &slices_of(&api)[..] else { panic!("one slice") };
    assert_eq!(slice["endpoints"][0]["hostname"], json!("web-0"));
    assert_eq!(slice["metadata"]["ownerReferences"][0]["kind"], json!("ServiceImport"));
    assert_eq!(slice["metadata"]["labels"][KUBE_PROXY], Value::Null);
    let import = &api.objects[&key(Kind::Import, "web")];
    assert_eq!((&import["spec"]["type"], &import["spec"]["ips"]), (&json!("Headless"), &Value::Null));
}

#[test]
fn many_endpoints_are_in_several_slices_and_one_more_changes_one_of_them() {
    let many = |count: u8| {
        let place = |n: u8| at("west", &format!("10.2.{}.{n}", n / 3), &[("http", 8080)]);
        sources(move |web| web.candidates = (0..count).map(place).collect())
    };
    let mut api = Api::default();
    settle(&mut api, &many(240), &setting(), &mut Learnt::default());
    let sizes: Vec<usize> =
        slices_of(&api).iter().map(|s| s["endpoints"].as_array().unwrap().len()).collect();
    let mut sizes = sizes;
    sizes.sort_unstable();
    assert_eq!(sizes, [40, 100, 100]);
    let mut step = |count: u8| settle(&mut api, &many(count), &setting(), &mut Learnt::default());
    assert_eq!(step(241), ["apply EndpointSlice"]);
    assert_eq!(step(128), ["apply EndpointSlice", "delete EndpointSlice"]);
    assert_eq!(step(129), ["apply EndpointSlice"], "whatever power of two it passes");
    assert_eq!(step(100), ["delete EndpointSlice"]);
    assert_eq!(step(101), ["make EndpointSlice"], "and the full one is left alone");
}

#[test]
fn objects_of_others_are_neither_changed_nor_taken_over() {
    let mut api = Api::default();
    let import_key = key(Kind::Import, "web");
    api.others(&import_key, json!({ "spec": { "type": "Headless", "ports": [] } }));
    api.others(&key(Kind::Export, "web"), json!({ "spec": {} }));
    let before = api.objects[&import_key].clone();
    settle(&mut api, &here_too(true, |_| {}), &setting(), &mut Learnt::default());
    assert_eq!(api.objects[&import_key], before);
    assert_eq!(api.objects.len(), 2, "and nothing beside it");
    let ready = &api.objects[&key(Kind::Export, "web")]["status"]["conditions"][1];
    let message = "ServiceImport shop/web was made by kubectl; it is not taken over: remove or rename it";
    assert_eq!((&ready["reason"], &ready["message"]), (&json!("Failed"), &json!(message)));
    assert!(api.told.contains(&("ServiceImport shop/web".to_owned(), format!("ForeignObject: {message}"))));

    let mut api = Api::default();
    let derived = key(Kind::Service, &derived::name(&name("shop/web")));
    let mut learnt =
        Learnt { foreign: BTreeMap::from([(derived, vec!["helm".to_owned()])]), ..Learnt::default() };
    settle(&mut api, &sources(|_| {}), &setting(), &mut learnt);
    let ready = &api.objects[&import_key]["status"]["conditions"][0];
    assert_eq!((&ready["status"], &ready["reason"]), (&json!("False"), &json!("Pending")));
    assert!(ready["message"].as_str().unwrap().contains("was made by helm"), "{ready}");
}

#[test]
fn what_others_made_is_not_taken_over_for_bearing_our_label() {
    // As after a restore from a copy: our names, our labels, another manager.
    for (kind, change) in
        [(Kind::Service, None), (Kind::Slice, None), (Kind::Slice, Some(ServiceType::Headless))]
    {
        let wanted = sources(|web| web.service_type = change.unwrap_or(web.service_type));
        let (mut api, mut learnt) = (Api::default(), Learnt::default());
        settle(&mut api, &wanted, &setting(), &mut learnt);
        let (key, ours) = api.objects.iter().find(|(key, _)| key.kind == kind).unwrap();
        let (key, mut theirs) = (key.clone(), ours.clone());
        theirs["metadata"].as_object_mut().unwrap().remove("managedFields");
        api.objects.remove(&key);
        api.others(&key, theirs);
        let before = api.objects[&key].clone();
        // It is not what it should be any more.
        let newer = Setting { revision: Revision { generation: 1, index: 8 }, ..setting() };
        let more = sources(|web| {
            web.service_type = change.unwrap_or(web.service_type);
            web.candidates.push(at("west", "10.2.0.2", &[("http", 8080)]));
            web.ports.push(Port { name: name("more"), port: 81, ..port() });
        });
        settle(&mut api, &more, &newer, &mut learnt);
        assert_eq!(api.objects[&key], before, "{kind:?} {change:?}");
        let ready = &api.objects[&self::key(Kind::Import, "web")]["status"]["conditions"][0];
        assert_eq!((&ready["status"], &ready["reason"]), (&json!("False"), &json!("Pending")), "{kind:?}");
        let message = ready["message"].as_str().unwrap();
        assert!(message.contains("is not taken over") && message.contains(&key.name), "{message}");
        assert!(api.told.iter().any(|(_, told)| told.contains("is not taken over")), "{:?}", api.told);
    }
}

#[test]
fn an_import_that_somebody_removed_comes_back_with_its_address() {
    let (mut api, mut learnt) = (Api::default(), Learnt::default());
    settle(&mut api, &sources(|_| {}), &setting(), &mut learnt);
    api.objects.remove(&key(Kind::Import, "web"));
    settle(&mut api, &sources(|_| {}), &setting(), &mut learnt);
    assert_eq!(api.objects[&key(Kind::Import, "web")]["spec"]["ips"], json!(["10.96.0.1"]));
}

#[test]
fn the_conditions_of_an_export_follow_and_news_is_told() {
    let (mut api, mut learnt) = (Api::default(), Learnt::default());
    let export = key(Kind::Export, "web");
    api.others(&export, json!({ "spec": {} }));
    let conditions = |api: &Api| -> Vec<String> {
        let list = api.objects[&export]["status"]["conditions"].as_array().unwrap().clone();
        list.iter()
            .map(|c| {
                format!(
                    "{}={}/{}",
                    c["type"].as_str().unwrap(),
                    c["status"].as_str().unwrap(),
                    c["reason"].as_str().unwrap()
                )
            })
            .collect()
    };
    settle(&mut api, &here_too(true, |_| {}), &setting(), &mut learnt);
    assert_eq!(conditions(&api), ["Valid=True/Valid", "Ready=True/Exported", "Conflict=False/NoConflicts"]);
    assert_eq!(api.objects[&export]["status"]["conditions"][0]["observedGeneration"], json!(3));
    assert_eq!(
        api.told,
        [("ServiceExport shop/web".to_owned(), "Exported: other clusters that import it: 1".to_owned())]
    );

    let mut disputed = here_too(true, |_| {});
    let conflict = |field| Conflict { field, message: "They differ.".to_owned() };
    let status = ExportStatus {
        service: name("shop/web"),
        ready: Ok(()),
        conflicts: vec![conflict(ConflictField::Port), conflict(ConflictField::Type)],
        importers: [name("west")].into(),
    };
    disputed
        .exports
        .insert(sealane_core::view::ViewKey::Export(name("shop/web")), ViewItem::Export(Arc::new(status)));
    settle(&mut api, &disputed, &setting(), &mut learnt);
    assert_eq!(conditions(&api)[2], "Conflict=True/PortConflict,TypeConflict");
    settle(&mut api, &here_too(true, |_| {}), &setting(), &mut learnt);
    let mut refused = here_too(true, |_| {});
    let refusal = Refusal {
        code: RefusalCode::Forbidden,
        message: "the export grant \"a-*\" does not cover it".to_owned(),
    };
    refused.refused = Arc::new(BTreeMap::from([(name("shop/web"), refusal)]));
    settle(&mut api, &refused, &setting(), &mut learnt);
    assert_eq!(conditions(&api)[..2], ["Valid=True/Valid", "Ready=False/Failed"]);
    let told: Vec<&str> = api.told[1..].iter().map(|(_, what)| what.as_str()).collect();
    assert_eq!(
        told,
        [
            "PortConflict,TypeConflict: They differ. They differ.",
            "NoConflicts: all exports of this service agree",
            "Failed: the export grant \"a-*\" does not cover it",
        ]
    );
}

#[test]
fn a_condition_says_nothing_of_a_generation_that_the_store_has_not_acknowledged() {
    let mut api = Api::default();
    let export = key(Kind::Export, "web");
    api.others(&export, json!({ "spec": {} }));
    let said = |api: &Api| -> Vec<String> {
        let list = api.objects[&export]["status"]["conditions"].as_array().unwrap().clone();
        let short = |c: &Value| {
            let text = |field: &str| c[field].as_str().unwrap().to_owned();
            format!("{}={}@{}", text("type"), text("status"), c["observedGeneration"])
        };
        list.iter().map(short).collect()
    };
    let edited = |generation: i64, confirmed: i64| {
        let mut sources = here_too(true, |_| {});
        let mut catalog = crate::catalog::Catalog::clone(&sources.common.catalog);
        let mut web = crate::catalog::Shard::clone(&catalog.shards[&name::<ServiceKey>("shop/web")]);
        web.generation = Some(confirmed);
        sources.confirmed.insert(name("shop/web"), Edition::of(&web));
        web.generation = Some(generation);
        catalog.shards.insert(name("shop/web"), Arc::new(web));
        let mut common = Common::clone(&sources.common);
        common.catalog = Arc::new(catalog);
        sources.common = Arc::new(common);
        sources
    };
    let (setting, mut learnt) = (setting(), Learnt::default());
    settle(&mut api, &edited(1, 0), &setting, &mut learnt);
    assert_eq!(said(&api), ["Valid=True@1", "Ready=Unknown@1"], "what the view says is about an older one");
    settle(&mut api, &edited(1, 1), &setting, &mut learnt);
    assert_eq!(said(&api), ["Valid=True@1", "Ready=True@1", "Conflict=False@1"]);
    settle(&mut api, &edited(2, 1), &setting, &mut learnt);
    assert_eq!(
        said(&api),
        ["Valid=True@2", "Ready=True@1", "Conflict=False@1"],
        "it was ready, and still is"
    );
    settle(&mut api, &edited(2, 2), &setting, &mut learnt);
    assert_eq!(said(&api), ["Valid=True@2", "Ready=True@2", "Conflict=False@2"]);
}
