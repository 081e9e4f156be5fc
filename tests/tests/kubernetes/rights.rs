//! The rights that the chart gives: each of them is used, none is missed, and what becomes of an agent that loses them.

use super::history::{self, Audit};
use super::member::Member;
use super::sink::with_plane;
use anyhow::{Context, Result, ensure};
use sealane::local::wait::until_true;
use sealane::local::{Federation, Lab};
use sealane_tests::charts::{objects, render};
use sealane_tests::control_plane::{ControlPlane, Shape};
use sealane_tests::{PATIENCE, skip, tools};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The user that the agent is.
pub(crate) const AGENT: &str = "system:serviceaccount:sealane-system:sealane-agent";

/// Gives the agent the rights of the chart, and nothing else.
pub(crate) async fn grant(plane: &ControlPlane) -> Result<()> {
    let rendered = objects(&render("sealane-cluster", None, &[])?)?;
    let rights = ["Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"];
    let items: Vec<Value> =
        rendered.into_iter().filter(|o| rights.iter().any(|kind| o["kind"] == *kind)).collect();
    plane.apply(&json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()).await
}

/// One right: a verb on a resource (`serviceexports/status.multicluster.x-k8s.io`), and on which names alone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Right {
    resource: String,
    verb: String,
    names: Vec<String>,
}

fn qualified(resource: &str, group: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}

/// The rights of the agent and of the one who cleans up after it, as the chart renders them.
fn granted() -> Result<BTreeSet<Right>> {
    let mut rights = BTreeSet::new();
    for role in objects(&render("sealane-cluster", None, &[])?)? {
        let of_agent =
            ["sealane-agent", "sealane-cleanup"].iter().any(|name| role["metadata"]["name"] == *name);
        let texts = |value: &Value| -> Vec<String> {
            value.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
        };
        for rule in role["rules"].as_array().into_iter().flatten().filter(|_| of_agent) {
            for group in texts(&rule["apiGroups"]) {
                for resource in texts(&rule["resources"]) {
                    for verb in texts(&rule["verbs"]) {
                        let names = texts(&rule["resourceNames"]);
                        rights.insert(Right { resource: qualified(&resource, &group), verb, names });
                    }
                }
            }
        }
    }
    Ok(rights)
}

/// What a request used.
struct Use {
    resource: String,
    verb: String,
    name: Option<String>,
    forbidden: bool,
    /// A verb that is asked for besides.
    also: Option<&'static str>,
}

/// Rights that this test has no use of, and which it would take luck to have.
const SELDOM: [(&str, &str, &str); 2] = [
    ("serviceexports.multicluster.x-k8s.io", "get", "its status was changed in the moment of a write"),
    ("events.events.k8s.io", "patch", "an Event happens again"),
];

fn uses(event: &Value) -> Option<Use> {
    let object = &event["objectRef"];
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let mut resource = text(&object["resource"])?;
    if let Some(part) = object["subresource"].as_str() {
        resource = format!("{resource}/{part}");
    }
    Some(Use {
        resource: qualified(&resource, object["apiGroup"].as_str().unwrap_or_default()),
        verb: text(&event["verb"])?,
        name: text(&object["name"]),
        forbidden: event["responseStatus"]["code"] == 403,
        also: match event["verb"].as_str() {
            // An apply that makes an object needs both.
            Some("patch") if event["responseStatus"]["code"] == 201 => Some("create"),
            // An API server that can not begin a watch with what is there is asked for a list.
            Some("watch") if event["requestURI"].to_string().contains("sendInitialEvents=true") => {
                Some("list")
            }
            _ => None,
        },
    })
}

impl Right {
    fn covers(&self, used: &Use) -> bool {
        let named = || used.name.as_ref().is_some_and(|name| self.names.contains(name));
        let verb = self.verb == used.verb || used.also.is_some_and(|verb| self.verb == verb);
        self.resource == used.resource && verb && (self.names.is_empty() || named())
    }
}

/// An agent joins, imports, exports, withdraws and is taken out, with the rights of the chart alone: nothing is refused,
/// and the audit log shows a use of every right.
#[test]
fn every_right_is_used_and_none_is_missed() {
    let name = "every_right_is_used_and_none_is_missed";
    if let Some(reason) = tools::missing(&[&tools::HELM]) {
        return skip(name, &reason);
    }
    with_plane(name, async |lab| {
        let audit = Audit::new(lab.path())?;
        let federation = Federation::of(lab, 1).await?;
        let mut east = Member::enrol(&federation, lab, Shape::new("east", 1), 1).await?;
        let mut west = Member::enrol(&federation, lab, audit.kept_by(Shape::new("west", 3)), 3).await?;
        grant(&west.plane).await?;
        let kubeconfig = west.plane.kubeconfig_of(AGENT, "")?;
        east.start("a", None).await?;
        west.start("a", Some(&kubeconfig)).await?;
        exercise(&east, &west).await?;
        west.agents.clear();
        let rendered = objects(&render("sealane-cluster", None, &[])?)?;
        let set = rendered.iter().find(|o| o["kind"] == "StatefulSet").context("no StatefulSet")?;
        west.plane.apply(&set.to_string()).await?;
        let kubeconfig = kubeconfig.to_string_lossy();
        let words = ["uninstall", "--namespace", "sealane-system", "--kubeconfig", &kubeconfig, "--yes"];
        lab.launcher().run(&words).await?;

        let events = audit.of(AGENT)?;
        let used: Vec<Use> = events.iter().filter_map(uses).collect();
        let refused: Vec<String> = used
            .iter()
            .filter(|u| u.forbidden)
            .map(|u| format!("{} {} {:?}", u.verb, u.resource, u.name))
            .collect();
        ensure!(refused.is_empty(), "refused: {refused:#?}");
        let seldom = |right: &Right| SELDOM.iter().any(|(r, v, _)| right.resource == *r && right.verb == *v);
        let mut unused: Vec<Right> = granted()?.into_iter().collect();
        unused.retain(|right| !seldom(right) && !used.iter().any(|u| right.covers(u)));
        ensure!(unused.is_empty(), "given and not used: {unused:#?}");
        Ok(())
    });
}

async fn exercise(east: &Member, west: &Member) -> Result<()> {
    east.serve("web", 80, "10.1.0.1").await?;
    east.export("web").await?;
    west.imports("web", &["10.1.0.1"]).await?;
    west.serve("cart", 80, "10.2.0.1").await?;
    west.export("cart").await?;
    west.condition("cart", "Ready", "Exported").await?;
    east.imports("cart", &["10.2.0.1"]).await?;
    east.plane.kubectl(&["delete", "serviceexport/web", "--namespace=shop"]).await?;
    until_true("web is gone from west", PATIENCE, async || {
        Ok(west.ours().await?.iter().all(|name| !name.ends_with("/web")))
    })
    .await?;
    Ok(())
}

/// The agents of both clusters lose all their rights on the clusters' objects and are given them back.
#[test]
fn rights_that_are_taken_away_and_given_back_take_nothing_with_them() {
    let name = "rights_that_are_taken_away_and_given_back_take_nothing_with_them";
    if let Some(reason) = tools::missing(&[&tools::HELM]) {
        return skip(name, &reason);
    }
    with_plane(name, async |lab| {
        let (_federation, mut east, mut west) = restricted(lab).await?;
        east.serve("web", 80, "10.1.0.1").await?;
        east.export("web").await?;
        west.imports("web", &["10.1.0.1"]).await?;
        let since = history::now(&west.plane).await?;
        for member in [&mut east, &mut west] {
            member.plane.kubectl(&["delete", "clusterrolebinding/sealane-agent"]).await?;
            // Watches that are open go on without the right: they are ended.
            member.plane.kill_server();
            member.plane.restart_server().await?;
            let lost = |s: &Value| {
                let said = s["source"]["unavailable"].as_str().unwrap_or_default();
                said.contains("this agent may not list") || said.contains("this agent may not watch")
            };
            member.says("the lost right is named", "a", lost).await?;
        }
        east.serve("web", 80, "10.1.0.2").await?;
        for member in [&east, &west] {
            grant(&member.plane).await?;
        }
        west.imports("web", &["10.1.0.2"]).await?;
        let changes = history::changes(&west.plane.archive(lab).await?, &since).await?;
        let taken: Vec<_> = changes.iter().filter(|c| c.takes_away()).collect();
        ensure!(taken.is_empty(), "{taken:#?}");
        for member in [&east, &west] {
            member.says("nothing is missing any more", "a", |s| s["source"]["unavailable"].is_null()).await?;
        }
        Ok(())
    });
}

/// Two members whose agents have the rights of the chart.
async fn restricted(lab: &Lab) -> Result<(Federation, Member, Member)> {
    let federation = Federation::of(lab, 1).await?;
    let mut members = Vec::new();
    for (name, place) in [("east", 1), ("west", 3)] {
        let mut member = Member::enrol(&federation, lab, Shape::new(name, place), place).await?;
        grant(&member.plane).await?;
        let kubeconfig = member.plane.kubeconfig_of(AGENT, "")?;
        member.start("a", Some(&kubeconfig)).await?;
        members.push(member);
    }
    let (west, east) = (members.pop().context("west")?, members.pop().context("east")?);
    Ok((federation, east, west))
}
