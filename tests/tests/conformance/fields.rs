//! What an import has of the Service: rows R3 to R9, O1, O2.

use super::cluster::Kind;
use super::objects::{self, AFFINITY_S, HELLO};
use super::stage::{Stage, imported};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::IpAddr;

fn has(field: &'static str, value: Value) -> impl Fn(&Value) -> Result<()> {
    move |import| {
        ensure!(import["spec"][field] == value, "{field} is not {value}");
        Ok(())
    }
}

/// R3: the client affinity of the Service, and its time-out.
pub(crate) async fn r3_session_affinity_matches(stage: &Stage) -> Result<()> {
    stage.hello().await?;
    stage.export().await?;
    stage.imported("has its affinity", has("sessionAffinity", json!("ClientIP"))).await?;
    let config = json!({"clientIP": {"timeoutSeconds": AFFINITY_S}});
    stage.imported("has its time-out", has("sessionAffinityConfig", config)).await
}

/// R4: the internal traffic policy of the Service.
pub(crate) async fn r4_internal_traffic_policy_matches(stage: &Stage) -> Result<()> {
    let service = objects::service_with(json!({"internalTrafficPolicy": "Local"}));
    stage.set(&[objects::deployment(1), service]).await?;
    stage.export().await?;
    stage.imported("has its policy", has("internalTrafficPolicy", json!("Local"))).await
}

/// R5: the traffic distribution of the Service.
pub(crate) async fn r5_traffic_distribution_matches(stage: &Stage) -> Result<()> {
    let service = objects::service_with(json!({"trafficDistribution": "PreferClose"}));
    stage.set(&[objects::deployment(1), service]).await?;
    stage.export().await?;
    stage.imported("has its distribution", has("trafficDistribution", json!("PreferClose"))).await
}

/// R6: one address for each family of the import, in its order.
pub(crate) async fn r6_one_address_for_each_family(stage: &Stage) -> Result<()> {
    stage.hello().await?;
    stage.export().await?;
    for cluster in &stage.clusters {
        let import = imported(cluster, "has one address a family", one_a_family).await?;
        // As many as the clusters' own Services of both families have.
        let probe = objects::service_with(json!({"selector": {"app": "nobody"}}));
        let probe = {
            let mut probe = probe;
            probe["metadata"]["name"] = json!("probe");
            probe
        };
        cluster.create(&probe).await?;
        let own = cluster.get(Kind::Service, "probe").await?["spec"]["ipFamilies"].clone();
        let families = |list: &Value| -> BTreeSet<String> {
            list.as_array().into_iter().flatten().map(ToString::to_string).collect()
        };
        let exported = stage.east().get(Kind::Service, HELLO).await?["spec"]["ipFamilies"].clone();
        let expected: BTreeSet<String> = families(&own).intersection(&families(&exported)).cloned().collect();
        let found = families(&import["spec"]["ipFamilies"]);
        ensure!(found == expected, "{} has {found:?}, not {expected:?}", cluster.name);
    }
    Ok(())
}

fn one_a_family(import: &Value) -> Result<()> {
    let ips = import["spec"]["ips"].as_array().context("no addresses")?;
    let families = import["spec"]["ipFamilies"].as_array().context("no families")?;
    ensure!(!ips.is_empty() && ips.len() == families.len(), "not one for each");
    for (ip, family) in ips.iter().zip(families) {
        let ip: IpAddr = ip.as_str().context("no text")?.parse()?;
        ensure!(*family == if ip.is_ipv4() { "IPv4" } else { "IPv6" }, "{ip} is not of {family}");
    }
    Ok(())
}

/// A port as imports have it.
fn port(port: &Value) -> Value {
    let mut made = json!({"protocol": port["protocol"], "port": port["port"]});
    for field in ["name", "appProtocol"] {
        if !port[field].is_null() {
            made[field] = port[field].clone();
        }
    }
    made
}

/// These ports, in any order.
fn has_ports(expected: &[Value]) -> impl Fn(&Value) -> Result<()> {
    let sorted = |ports: &mut dyn Iterator<Item = &Value>| {
        ports.map(|p| port(p).to_string()).collect::<BTreeSet<String>>()
    };
    let (count, expected) = (expected.len(), sorted(&mut expected.iter()));
    move |import| {
        let ports = import["spec"]["ports"].as_array().context("no ports")?;
        ensure!(ports.len() == count && sorted(&mut ports.iter()) == expected, "not {expected:?}");
        let strangers = ports.iter().flat_map(|p| p.as_object().into_iter().flatten());
        let strangers =
            strangers.filter(|(key, _)| !["name", "protocol", "port", "appProtocol"].contains(&key.as_str()));
        ensure!(strangers.count() == 0, "a port has more");
        Ok(())
    }
}

fn ports(service: &Value) -> Vec<Value> {
    service["spec"]["ports"].as_array().cloned().unwrap_or_default()
}

/// R7: the ports of the Service, with their names, protocols and application protocols.
pub(crate) async fn r7_ports_match(stage: &Stage) -> Result<()> {
    stage.hello().await?;
    stage.export().await?;
    stage.imported("has its ports", has_ports(&ports(&objects::service()))).await
}

/// R8: the ports of two clusters' Services together; that they differ is told to both.
pub(crate) async fn r8_ports_are_united_and_the_difference_told(stage: &Stage) -> Result<()> {
    stage.hello().await?;
    let more = json!({"name": "more", "protocol": "TCP", "port": 142});
    let tcp = ports(&objects::service()).remove(0);
    stage.west().create(&objects::service_with(json!({"ports": [tcp, more]}))).await?;
    stage.export().await?;
    let mut all = ports(&objects::service());
    stage.imported("has the first one's ports", has_ports(&all)).await?;
    tokio::time::sleep(super::wait::APART).await;
    stage.west().create(&objects::export()).await?;
    all.push(more);
    stage.imported("has all ports", has_ports(&all)).await?;
    stage.both("Conflict", "True", "PortConflict").await
}

/// R9: of ports that contradict each other those of the oldest export are taken, and both are told.
pub(crate) async fn r9_of_conflicting_ports_the_oldest_win(stage: &Stage) -> Result<()> {
    stage.hello().await?;
    // One has the name of another number, and one the number of another name.
    let others = json!([
        {"name": "tcp", "protocol": "TCP", "port": 4242},
        {"name": "other", "protocol": "UDP", "port": 42},
    ]);
    stage.west().create(&objects::service_with(json!({"ports": others}))).await?;
    stage.export_both().await?;
    stage.both("Conflict", "True", "PortConflict").await?;
    stage.imported("has the oldest ports", has_ports(&ports(&objects::service()))).await
}

/// An export whose own labels and annotations are others than those that it exports.
fn exporting(own: &Value, exported: &Value) -> Value {
    let mut export = objects::export();
    export["metadata"]["labels"] = own.clone();
    export["metadata"]["annotations"] = own.clone();
    export["spec"] = json!({"exportedLabels": exported, "exportedAnnotations": exported});
    export
}

/// In labels and in annotations: this key of this value, and none of these.
fn labelled(
    key: &'static str,
    value: &'static str,
    none: &'static [&'static str],
) -> impl Fn(&Value) -> Result<()> {
    move |import| {
        for field in ["labels", "annotations"] {
            let found = &import["metadata"][field];
            ensure!(found[key] == value, "{key} is not {value} in {field} {found}");
            let strangers: Vec<&&str> = none.iter().filter(|n| !found[**n].is_null()).collect();
            ensure!(strangers.is_empty(), "{strangers:?} in {field} {found}");
        }
        Ok(())
    }
}

/// O1: an import has the labels and annotations that the export exports, and no others of it or of the Service.
pub(crate) async fn o1_only_exported_labels_are_imported(stage: &Stage) -> Result<()> {
    let mut service = objects::service();
    service["metadata"]["labels"] = json!({"of-service": "yes"});
    service["metadata"]["annotations"] = json!({"of-service": "yes"});
    stage.set(&[objects::deployment(1), service]).await?;
    let export = exporting(&json!({"of-export": "yes"}), &json!({"exported": "yes"}));
    stage.east().create(&export).await?;
    stage.imported("is labelled", labelled("exported", "yes", &["of-export", "of-service"])).await
}

/// O2: where two exports export different ones, those of the oldest are taken as a whole, and both are told.
pub(crate) async fn o2_of_conflicting_labels_the_oldest_win(stage: &Stage) -> Result<()> {
    stage.hello().await?;
    stage.west().create(&objects::service()).await?;
    let first = exporting(&json!({}), &json!({"exported": "first"}));
    let second = exporting(&json!({}), &json!({"exported": "second", "more": "yes"}));
    stage.export_these(&first, &second).await?;
    stage.both("Conflict", "True", "LabelsConflict").await?;
    stage.both("Conflict", "True", "AnnotationsConflict").await?;
    stage.imported("is labelled by the oldest", labelled("exported", "first", &["more"])).await
}
