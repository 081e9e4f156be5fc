//! The Helm charts, by Helm itself: what they render, what they refuse, and that they agree with the code and the docs.

#[path = "charts/values.rs"]
mod values;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use sealane_tests::charts::golden::Golden;
use sealane_tests::charts::{CHARTS, containers, helm, objects, path, readme, render, root};
use sealane_tests::oci::product;
use sealane_tests::tools::{self, HELM};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tracing_subscriber::EnvFilter;

/// A gateway, and where others dial it.
const GATEWAY: &str = "gateway.enabled=true,cluster.gatewayAddresses={gw.example.org:15443}";

/// Whether the tests of this file can run; said loudly where they can not.
fn ready(test: &str) -> bool {
    match tools::missing(&[&HELM]) {
        Some(reason) => {
            sealane_tests::skip(test, &reason);
            false
        }
        None => true,
    }
}

/// Every object that any chart renders with any values file.
fn everything() -> Result<Vec<(String, Value)>> {
    let mut all = Vec::new();
    for golden in Golden::all()? {
        let name = format!("{} {}", golden.chart, golden.variant.as_deref().unwrap_or("values"));
        all.extend(objects(&golden.render()?)?.into_iter().map(|o| (name.clone(), o)));
    }
    Ok(all)
}

#[test]
fn helm_finds_nothing_to_complain_of() -> Result<()> {
    if !ready("helm_finds_nothing_to_complain_of") {
        return Ok(());
    }
    for golden in Golden::all()? {
        let directory = path(golden.chart).to_string_lossy().into_owned();
        let file = golden.variant.map(|v| format!("{directory}/{v}.yaml"));
        let mut arguments = vec!["lint", "--strict", "--quiet", &directory];
        if let Some(file) = &file {
            arguments.extend(["--values", file]);
        }
        helm(&arguments)?;
    }
    Ok(())
}

#[test]
fn every_values_file_renders_as_recorded() -> Result<()> {
    if !ready("every_values_file_renders_as_recorded") {
        return Ok(());
    }
    let mut kept = BTreeSet::new();
    for golden in Golden::all()? {
        let file = golden.path();
        let recorded = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(
            golden.render()? == recorded,
            "{} is not what is rendered now: run `cargo run -p sealane-tests --bin charts -- update` and look at the \
             difference",
            file.display()
        );
        kept.insert(file.canonicalize()?);
    }
    for chart in CHARTS {
        for entry in std::fs::read_dir(root().join("tests/golden").join(chart))? {
            let file = entry?.path().canonicalize()?;
            assert!(kept.contains(&file), "{} belongs to no values file", file.display());
        }
    }
    Ok(())
}

#[test]
fn the_readmes_say_what_the_comments_say() -> Result<()> {
    for chart in CHARTS {
        let written = std::fs::read_to_string(readme::readme(chart))?;
        assert!(
            readme::updated(chart)? == written,
            "{chart}/README.md: run `cargo run -p sealane-tests --bin charts -- update`"
        );
    }
    Ok(())
}

/// The subcommand that a container runs, if the program understands all of its arguments.
fn understood(container: &Value, object: &Value) -> Result<String> {
    let arguments = container["args"].as_array().context("a container without arguments")?;
    let arguments = arguments.iter().filter_map(Value::as_str).map(|a| match a.contains("$(") {
        true => bail!("{a} is expanded by nobody"),
        false => Ok(a),
    });
    let mut line = vec!["sealane"];
    line.extend(arguments.collect::<Result<Vec<_>>>()?);
    // What the environment of a pod says.
    let pod = format!("{}-0", object["metadata"]["name"].as_str().unwrap_or_default());
    if line[1] == "kubernetes" {
        line.extend(["--pod", &pod]);
    }
    sealane::args::Args::try_parse_from(&line).with_context(|| format!("{line:?}"))?;
    let filters = line.iter().filter_map(|a| a.strip_prefix("--log="));
    for filter in filters {
        EnvFilter::try_new(filter).with_context(|| filter.to_owned())?;
    }
    Ok(line[1].to_owned())
}

#[test]
fn the_image_is_stated_in_one_way() -> Result<()> {
    if !ready("the_image_is_stated_in_one_way") {
        return Ok(());
    }
    let digest = format!("image.digest=sha256:{}", "0".repeat(64));
    let expected = [
        (vec![], format!("sealane:{}", env!("CARGO_PKG_VERSION"))),
        (vec!["image.registry=r.example.org", "image.tag=t"], "r.example.org/sealane:t".to_owned()),
        (
            vec!["global.imageRegistry=g.example.org", "image.registry=r.example.org", &digest],
            format!("g.example.org/sealane@sha256:{}", "0".repeat(64)),
        ),
    ];
    for (set, image) in expected {
        for chart in ["sealane-federation", "sealane-cluster"] {
            let objects = objects(&render(chart, None, &set)?)?;
            let images = objects.iter().flat_map(containers).map(|c| c["image"].clone()).collect::<Vec<_>>();
            assert!(
                !images.is_empty() && images.iter().all(|i| *i == json!(image)),
                "{chart} {set:?}: {images:?}"
            );
        }
    }
    // What `--bin image` builds is what the charts ask for.
    assert_eq!(product::default_name(), format!("docker.io/library/sealane:{}", env!("CARGO_PKG_VERSION")));
    for chart in CHARTS {
        let stated = std::fs::read_to_string(path(chart).join("Chart.yaml"))?;
        for key in ["version", "appVersion"] {
            let line = format!("{key}: {}", env!("CARGO_PKG_VERSION"));
            assert!(stated.lines().any(|l| l == line), "{chart}/Chart.yaml does not say {line}");
        }
    }
    Ok(())
}

#[test]
fn every_container_is_started_with_arguments_that_the_program_knows() -> Result<()> {
    if !ready("every_container_is_started_with_arguments_that_the_program_knows") {
        return Ok(());
    }
    let mut seen = BTreeSet::new();
    for (name, object) in everything()? {
        for container in containers(&object) {
            seen.insert(understood(container, &object).with_context(|| name.clone())?);
        }
    }
    assert_eq!(
        seen,
        BTreeSet::from(["agent", "federation", "kubernetes", "proxy", "uninstall"].map(str::to_owned))
    );
    Ok(())
}

#[test]
fn no_pod_may_do_more_than_the_restricted_standard_allows() -> Result<()> {
    if !ready("no_pod_may_do_more_than_the_restricted_standard_allows") {
        return Ok(());
    }
    let mut pods = 0;
    for (name, object) in everything()? {
        let pod = &object["spec"]["template"]["spec"];
        if pod.is_null() {
            continue;
        }
        pods += 1;
        let of = |key: &str| pod["securityContext"][key].clone();
        let user = json!(product::USER);
        assert_eq!(
            (of("runAsNonRoot"), of("runAsUser"), of("runAsGroup")),
            (json!(true), user.clone(), user),
            "{name}"
        );
        assert_eq!(of("seccompProfile"), json!({"type": "RuntimeDefault"}), "{name}");
        for key in ["hostNetwork", "hostPID", "hostIPC"] {
            assert!(pod[key].is_null(), "{name}: {key}");
        }
        for volume in pod["volumes"].as_array().into_iter().flatten() {
            assert!(volume["hostPath"].is_null(), "{name}: {volume}");
        }
        for container in containers(&object) {
            let expected = json!({
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": {"drop": ["ALL"]},
            });
            assert_eq!(container["securityContext"], expected, "{name}");
            let resources = &container["resources"];
            assert!(resources["requests"].is_object() && resources["limits"]["memory"].is_string(), "{name}");
        }
    }
    assert!(pods > 0);
    Ok(())
}

/// The rows of the table under a heading of a document, without its head.
fn table(document: &str, heading: &str) -> Result<Vec<Vec<String>>> {
    let text = std::fs::read_to_string(root().join(document)).with_context(|| document.to_owned())?;
    let at = text.find(heading).with_context(|| format!("{document} has no {heading}"))?;
    let lines = text[at..].lines().skip_while(|l| !l.starts_with('|')).take_while(|l| l.starts_with('|'));
    let cells = |l: &str| l.trim_matches('|').split('|').map(|c| c.trim().replace('`', "")).collect();
    Ok(lines.skip(2).map(cells).collect())
}

/// `agent 7450/TCP`, from a list of ports.
fn ports(of: &Value, number: &str, owner: &str) -> Vec<String> {
    let ports = of["ports"].as_array().into_iter().flatten();
    ports.map(|p| format!("{owner} {}/{}", p[number], p["protocol"].as_str().unwrap_or("TCP"))).collect()
}

#[test]
fn the_ports_of_the_charts_are_those_of_the_docs() -> Result<()> {
    if !ready("the_ports_of_the_charts_are_those_of_the_docs") {
        return Ok(());
    }
    let mut rendered = BTreeSet::new();
    let mut all = objects(&render("sealane-federation", None, &["metrics.enabled=true"])?)?;
    all.extend(objects(&render("sealane-cluster", None, &[GATEWAY])?)?);
    for object in &all {
        for container in containers(object) {
            let name = container["name"].as_str().context("a container has a name")?;
            rendered.extend(ports(container, "containerPort", &format!("container {name}")));
        }
        if object["kind"] == "Service" {
            let name = object["metadata"]["name"].as_str().context("a Service has a name")?;
            rendered.extend(ports(&object["spec"], "port", &format!("Service {name}")));
        }
    }
    let documented = table("docs/ports.md", "## In Kubernetes")?.into_iter();
    let documented = documented.map(|row| format!("{} {}", row[0], row[1])).collect::<BTreeSet<_>>();
    assert_eq!(rendered, documented);
    Ok(())
}

/// One row for each resource that a rule names.
fn rules(object: &Value) -> Vec<String> {
    let words = |value: &Value| {
        value
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let mut rows = Vec::new();
    for rule in object["rules"].as_array().into_iter().flatten() {
        for group in words(&rule["apiGroups"]) {
            for resource in words(&rule["resources"]) {
                let resource = if group.is_empty() { resource } else { format!("{resource}.{group}") };
                let (names, verbs) =
                    (words(&rule["resourceNames"]).join(", "), words(&rule["verbs"]).join(", "));
                let (kind, name) = (&object["kind"], &object["metadata"]["name"]);
                let owner = format!("{} {}", kind.as_str().unwrap_or("?"), name.as_str().unwrap_or("?"));
                rows.push(format!("{owner} | {resource} | {names} | {verbs}"));
            }
        }
    }
    rows
}

#[test]
fn every_right_is_in_the_golden_list_with_the_code_that_needs_it() -> Result<()> {
    if !ready("every_right_is_in_the_golden_list_with_the_code_that_needs_it") {
        return Ok(());
    }
    for (chart, set) in
        [("sealane-cluster", "rbac.aggregate.edit=true"), ("sealane-federation", "servers.replicas=3")]
    {
        let objects = objects(&render(chart, None, &[set])?)?;
        let mut rendered = objects.iter().flat_map(rules).collect::<Vec<_>>();
        let document = format!("charts/{chart}/RBAC.md");
        let listed = table(&document, "# ")?;
        for row in &listed {
            let needs = row.last().context("a row has cells")?;
            ensure!(!needs.is_empty(), "{document}: {row:?} says nobody who needs it");
            for file in needs.split(", ").filter(|need| need.ends_with(".rs")) {
                ensure!(root().join(file).is_file(), "{document}: {row:?} names a file that is not there");
            }
        }
        let mut documented = listed.iter().map(|row| row[..4].join(" | ")).collect::<Vec<_>>();
        rendered.sort();
        documented.sort();
        assert_eq!(rendered, documented, "{document}");
    }
    Ok(())
}

#[test]
fn nobody_reads_secrets_of_other_namespaces_or_gets_rights_by_wildcard() -> Result<()> {
    if !ready("nobody_reads_secrets_of_other_namespaces_or_gets_rights_by_wildcard") {
        return Ok(());
    }
    for (name, object) in everything()? {
        for row in rules(&object) {
            assert!(!row.contains('*'), "{name}: {row}");
            let cluster_wide = object["kind"] == "ClusterRole";
            assert!(!(cluster_wide && row.contains("| secrets |")), "{name}: {row}");
            assert!(!row.contains("escalate") && !row.contains("impersonate"), "{name}: {row}");
        }
    }
    Ok(())
}

#[test]
fn services_have_the_families_that_their_pods_hear() -> Result<()> {
    if !ready("services_have_the_families_that_their_pods_hear") {
        return Ok(());
    }
    let cases = [
        ("sealane-cluster", [GATEWAY, "agent.listenAddress=", "gateway.listenAddress="]),
        ("sealane-federation", ["external.enabled=false", "servers.listenAddress=", ""]),
    ];
    for (chart, values) in cases {
        for (address, policy) in [("0.0.0.0", "SingleStack"), ("[::]", "PreferDualStack")] {
            let values = values.iter().filter(|v| !v.is_empty());
            let set: Vec<String> = values
                .map(|v| if v.ends_with('=') { format!("{v}{address}") } else { (*v).to_owned() })
                .collect();
            let rendered =
                objects(&render(chart, None, &set.iter().map(String::as_str).collect::<Vec<_>>())?)?;
            let services: Vec<_> = rendered.iter().filter(|o| o["kind"] == "Service").collect();
            ensure!(services.len() > 1, "{chart}");
            for service in services {
                let families = if policy == "SingleStack" { json!(["IPv4"]) } else { Value::Null };
                let spec = &service["spec"];
                ensure!(
                    spec["ipFamilyPolicy"] == policy && spec["ipFamilies"] == families,
                    "{chart}: {service}"
                );
            }
        }
    }
    Ok(())
}

/// The Secret that an upgrade makes was there before: nobody may found a federation upon it.
#[test]
fn only_an_install_makes_a_secret_that_is_new() -> Result<()> {
    if !ready("only_an_install_makes_a_secret_that_is_new") {
        return Ok(());
    }
    let chart = path("sealane-federation").to_string_lossy().into_owned();
    for (more, expected) in [(&[][..], json!("true")), (&["--is-upgrade"][..], Value::Null)] {
        let rendered = helm(&[&["template", "sealane", &chart][..], more].concat())?;
        let rendered = objects(&rendered)?;
        let secret = rendered.iter().find(|o| o["kind"] == "Secret").context("no Secret")?;
        assert_eq!(secret["metadata"]["annotations"]["sealane.dev/unused"], expected);
    }
    Ok(())
}
