//! `sealane uninstall`: takes out of a cluster what its agents wrote there.
//!
//! Law: only what is ours is touched, and both must say so: our label, and our entry in the object's `managedFields`. What
//! people made (ServiceExports, the join token) stays. It can be repeated, and needs no agent that works: the agents are
//! stopped first, because they would make everything anew.

mod kinds;

use anyhow::{Context, Result, bail};
use clap::Args;
use kinds::{CLUSTER_PROPERTY, EXPORT, Kind, LABELLED, OWN};
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, Preconditions};
use kube::core::ObjectMeta;
use kube::{Api, Client};
use sealane_agent::args::Kubernetes;
use sealane_agent::desired::{MANAGED_BY, MANAGER};
use sealane_core::name::Namespace;
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(10);
/// How long the agents may take to end.
const ENDING: Duration = Duration::from_secs(90);
/// How often they are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How many objects are asked for at a time.
const PAGE: u32 = 500;
/// The labels of the agents' pods, as the chart gives them.
const AGENTS: &str = "app.kubernetes.io/name=sealane,app.kubernetes.io/component=agent";

/// `sealane uninstall`.
#[derive(Debug, Args)]
pub struct UninstallArgs {
    /// The namespace of the agents.
    #[arg(long, env = "POD_NAMESPACE", default_value = "sealane-system")]
    pub namespace: Namespace,
    /// How the API server is reached [default: as a pod of the cluster].
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// The context of --kubeconfig [default: its current one].
    #[arg(long, requires = "kubeconfig")]
    pub kube_context: Option<String>,
}

/// Cleans a cluster.
///
/// # Errors
/// When the API server refuses something, or the agents do not end.
pub async fn uninstall(args: UninstallArgs) -> Result<()> {
    let kubernetes = Kubernetes {
        kubeconfig: args.kubeconfig,
        context: args.kube_context,
        namespace: args.namespace.clone(),
        replica: String::new(),
    };
    let client = sealane_agent::kubernetes::client(&kubernetes).await?;
    let cleaner = Cleaner { client, namespace: args.namespace };
    cleaner.stop_agents().await?;
    for (kind, label) in &LABELLED {
        cleaner.delete_labelled(kind, label).await?;
    }
    cleaner.take_back_conditions().await?;
    for (kind, name) in &OWN {
        cleaner.delete_own(kind, name).await?;
    }
    Ok(())
}

struct Cleaner {
    client: Client,
    namespace: Namespace,
}

impl Cleaner {
    async fn stop_agents(&self) -> Result<()> {
        self.delete_own(&kinds::STATEFUL_SET, MANAGER).await?;
        let pods: Api<DynamicObject> = self.beside(&kinds::POD);
        let chosen = ListParams::default().labels(AGENTS).limit(PAGE);
        let deadline = Instant::now() + ENDING;
        loop {
            let left = ask("list the agents' pods", pods.list(&chosen)).await?.items;
            let Some(pod) = left.first() else { return Ok(()) };
            if Instant::now() >= deadline {
                let name = pod.metadata.name.as_deref().unwrap_or_default();
                bail!("the pod {name} did not end within {} s: delete it, and try again", ENDING.as_secs());
            }
            sleep(LOOK).await;
        }
    }

    /// Deletes what the agents made, wherever it is.
    async fn delete_labelled(&self, kind: &Kind, label: &str) -> Result<()> {
        let Some(resource) = kind.served(&self.client).await? else { return Ok(()) };
        let all: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
        let chosen = ListParams::default().labels(&format!("{label}={MANAGER}"));
        for object in list(&all, &chosen, kind).await? {
            if !is_ours(&object.metadata, label) {
                tracing::warn!(
                    kind = kind.kind,
                    name = named(&object),
                    "bears our label and is not ours; left as it is"
                );
                continue;
            }
            let api = match &object.metadata.namespace {
                Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
                None => all.clone(),
            };
            delete(&api, kind, &object).await?;
        }
        Ok(())
    }

    /// Takes our conditions off the exports, which are their owners'.
    async fn take_back_conditions(&self) -> Result<()> {
        let Some(resource) = EXPORT.served(&self.client).await? else { return Ok(()) };
        let all: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
        for export in list(&all, &ListParams::default(), &EXPORT).await? {
            let (Some(namespace), Some(name)) = (&export.metadata.namespace, &export.metadata.name) else {
                continue;
            };
            if !has_our_entry(&export.metadata) {
                continue;
            }
            // To apply nothing is to give up everything that was applied before.
            let nothing = json!({
                "apiVersion": resource.api_version,
                "kind": resource.kind,
                "metadata": {"name": name, "namespace": namespace},
            });
            let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resource);
            let params = PatchParams { force: true, ..PatchParams::apply(MANAGER) };
            let patch = Patch::Apply(&nothing);
            ask("take back the conditions of an export", api.patch_status(name, &params, &patch)).await?;
            tracing::info!(kind = EXPORT.kind, name = named(&export), "conditions taken back");
        }
        Ok(())
    }

    /// Deletes an object that has its name from us, in our namespace or, for a ClusterProperty, cluster-wide.
    async fn delete_own(&self, kind: &Kind, name: &str) -> Result<()> {
        let Some(resource) = kind.served(&self.client).await? else { return Ok(()) };
        let api: Api<DynamicObject> = match kind.kind == CLUSTER_PROPERTY.kind {
            true => Api::all_with(self.client.clone(), &resource),
            false => self.beside(kind),
        };
        let what = format!("delete {} {name}", kind.kind);
        if kind.kind != CLUSTER_PROPERTY.kind {
            return gone(kind, name, timeout(REQUEST, api.delete(name, &DeleteParams::background())).await);
        }
        let found = ask(&what, api.get_opt(name)).await?;
        let Some(object) = found.filter(|o| is_ours(&o.metadata, MANAGED_BY)) else { return Ok(()) };
        delete(&api, kind, &object).await
    }

    fn beside(&self, kind: &Kind) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), self.namespace.as_str(), &kind.resource(kind.versions[0]))
    }
}

/// All objects, page by page.
async fn list(api: &Api<DynamicObject>, chosen: &ListParams, kind: &Kind) -> Result<Vec<DynamicObject>> {
    let mut all = Vec::new();
    let mut params = chosen.clone().limit(PAGE);
    loop {
        let page = ask(&format!("list {}", kind.plural), api.list(&params)).await?;
        all.extend(page.items);
        match page.metadata.continue_.filter(|c| !c.is_empty()) {
            Some(next) => params = chosen.clone().limit(PAGE).continue_token(&next),
            None => return Ok(all),
        }
    }
}

/// Deletes this very object: one that was made anew under its name stays.
async fn delete(api: &Api<DynamicObject>, kind: &Kind, object: &DynamicObject) -> Result<()> {
    let name = object.metadata.name.as_deref().unwrap_or_default();
    let this = Preconditions { uid: object.metadata.uid.clone(), resource_version: None };
    let params = DeleteParams { preconditions: Some(this), ..DeleteParams::background() };
    gone(kind, &named(object), timeout(REQUEST, api.delete(name, &params)).await)
}

/// What became of a deletion; what is not there is as good as deleted.
fn gone<T>(
    kind: &Kind,
    name: &str,
    answer: Result<Result<T, kube::Error>, tokio::time::error::Elapsed>,
) -> Result<()> {
    match answer.context("the API server did not answer in time")? {
        Ok(_) => tracing::info!(kind = kind.kind, name, "deleted"),
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => return Err(error).with_context(|| format!("can not delete {} {name}", kind.kind)),
    }
    Ok(())
}

async fn ask<T>(what: &str, request: impl Future<Output = Result<T, kube::Error>>) -> Result<T> {
    let answer = timeout(REQUEST, request).await.context("the API server did not answer in time");
    answer.and_then(|a| a.map_err(Into::into)).with_context(|| format!("can not {what}"))
}

fn named(object: &DynamicObject) -> String {
    let name = object.metadata.name.as_deref().unwrap_or_default();
    object.metadata.namespace.as_ref().map_or_else(|| name.to_owned(), |n| format!("{n}/{name}"))
}

/// Whether an object is ours by its label and by who wrote it.
fn is_ours(meta: &ObjectMeta, label: &str) -> bool {
    let labelled = meta.labels.as_ref().and_then(|l| l.get(label)).is_some_and(|value| value == MANAGER);
    labelled && has_our_entry(meta)
}

fn has_our_entry(meta: &ObjectMeta) -> bool {
    meta.managed_fields.iter().flatten().any(|entry| entry.manager.as_deref() == Some(MANAGER))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;

    #[test]
    fn a_label_alone_or_an_entry_alone_makes_nothing_ours() {
        let meta = |label: &str, manager: &str| ObjectMeta {
            labels: Some([(MANAGED_BY.to_owned(), label.to_owned())].into()),
            managed_fields: Some(vec![ManagedFieldsEntry {
                manager: Some(manager.to_owned()),
                ..ManagedFieldsEntry::default()
            }]),
            ..ObjectMeta::default()
        };
        assert!(is_ours(&meta(MANAGER, MANAGER), MANAGED_BY));
        assert!(!is_ours(&meta(MANAGER, "another"), MANAGED_BY));
        assert!(!is_ours(&meta("another", MANAGER), MANAGED_BY));
        assert!(!is_ours(&ObjectMeta::default(), MANAGED_BY));
    }
}
