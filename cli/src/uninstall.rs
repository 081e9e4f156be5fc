//! `sealane uninstall`: takes out of a cluster what its agents wrote there.
//!
//! Law: only what is ours is touched, and both must say so: our label, and our entry in the object's `managedFields`. Of what
//! has its name from us in our own namespace the label says it, because people may restore those objects from a copy. What
//! people made (ServiceExports, the join token) stays. It can be repeated, and needs no agent that works: the agents are
//! stopped first, because they would make everything anew.

mod kinds;
mod ours;
mod pages;

use anyhow::{Context, Result, bail};
use clap::Args;
use kinds::{CLUSTER_PROPERTY, EXPORT, Kind, LABELLED, OWN};
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, Preconditions};
use kube::core::ObjectMeta;
use kube::{Api, Client};
use ours::{AGENTS, Proof};
use pages::{PAGE, Pages};
use sealane_agent::args::Kubernetes;
use sealane_agent::desired::MANAGER;
use sealane_agent::ours::{has_our_entry, is_ours};
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
    /// Do it. With --kubeconfig and without this, what would be taken out is told and nothing is touched.
    #[arg(long)]
    pub yes: bool,
}

/// Examples, for `--help`.
pub const HELP: &str = "Examples:\n  sealane uninstall --kubeconfig ~/.kube/config --kube-context east         what it would \
    take out\n  sealane uninstall --kubeconfig ~/.kube/config --kube-context east --yes   take it out";

/// Cleans a cluster.
///
/// # Errors
/// When the API server refuses something, or the agents do not end.
pub async fn uninstall(args: UninstallArgs) -> Result<()> {
    let far = args.kubeconfig.is_some();
    let kubernetes = Kubernetes {
        kubeconfig: args.kubeconfig,
        context: args.kube_context,
        namespace: args.namespace.clone(),
        replica: String::new(),
    };
    let client = sealane_agent::kubernetes::client(&kubernetes).await?;
    let cleaner = Cleaner { client, namespace: args.namespace };
    cleaner.agents_are_here().await?;
    if far && !args.yes {
        return cleaner.tell().await;
    }
    cleaner.stop_agents().await?;
    for (kind, label) in &LABELLED {
        cleaner.delete_labelled(kind, label).await?;
    }
    cleaner.take_back_conditions().await?;
    for (kind, name, proof) in &OWN {
        cleaner.delete_own(kind, name, *proof).await?;
    }
    Ok(())
}

struct Cleaner {
    client: Client,
    namespace: Namespace,
}

impl Cleaner {
    /// Refuses where the agents are in another namespace: they would make everything anew meanwhile.
    async fn agents_are_here(&self) -> Result<()> {
        let resource = kinds::POD.resource(kinds::POD.versions[0]);
        let pods: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
        let found =
            ask("list the agents' pods", pods.list_metadata(&ListParams::default().labels(AGENTS))).await?;
        let elsewhere = |namespace: &&String| namespace.as_str() != self.namespace.as_str();
        match found.items.iter().filter_map(|pod| pod.metadata.namespace.as_ref()).find(elsewhere) {
            Some(namespace) => bail!(
                "the agents of this cluster run in the namespace {namespace}, not in {}: nothing was touched; give \
                 --namespace {namespace}",
                self.namespace
            ),
            None => Ok(()),
        }
    }

    /// Tells what would be taken out.
    async fn tell(&self) -> Result<()> {
        println!("nothing was touched; with --yes these are taken out of the cluster:");
        for (kind, label) in &LABELLED {
            let Some(resource) = kind.served(&self.client).await? else { continue };
            let all: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
            let mut pages = Pages::new(&all, kind, Some(format!("{label}={MANAGER}")));
            let mut count = 0;
            while let Some(page) = pages.next().await? {
                count += page.iter().filter(|object| is_ours(&object.metadata, label)).count();
            }
            println!("{:24} {count}", kind.kind);
        }
        for (kind, name, proof) in [(&kinds::STATEFUL_SET, MANAGER, Proof::Chart)]
            .into_iter()
            .chain(OWN.iter().map(|(kind, name, proof)| (kind, *name, *proof)))
        {
            if let Some((_, object)) = self.own(kind, name).await?
                && proof.holds(&object)
            {
                println!("{:24} {name}", kind.kind);
            }
        }
        Ok(())
    }

    async fn stop_agents(&self) -> Result<()> {
        self.delete_own(&kinds::STATEFUL_SET, MANAGER, Proof::Chart).await?;
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
        let mut pages = Pages::new(&all, kind, Some(format!("{label}={MANAGER}")));
        while let Some(page) = pages.next().await? {
            for object in page {
                if !is_ours(&object.metadata, label) {
                    left(kind, &named(&object.metadata), "it bears our label, and we did not write it");
                    continue;
                }
                let api = match &object.metadata.namespace {
                    Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
                    None => all.clone(),
                };
                delete(&api, kind, &object.metadata).await?;
            }
        }
        Ok(())
    }

    /// Takes our conditions off the exports, which are their owners'.
    async fn take_back_conditions(&self) -> Result<()> {
        let Some(resource) = EXPORT.served(&self.client).await? else { return Ok(()) };
        let all: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
        let mut pages = Pages::new(&all, &EXPORT, None);
        while let Some(page) = pages.next().await? {
            for export in page.iter().filter(|export| has_our_entry(&export.metadata)) {
                self.take_back(&resource, &export.metadata).await?;
            }
        }
        Ok(())
    }

    async fn take_back(&self, resource: &ApiResource, export: &ObjectMeta) -> Result<()> {
        let (Some(namespace), Some(name)) = (&export.namespace, &export.name) else { return Ok(()) };
        // To apply nothing is to give up everything that was applied before.
        let nothing = json!({
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": {"name": name, "namespace": namespace},
        });
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, resource);
        let params = PatchParams { force: true, ..PatchParams::apply(MANAGER) };
        let patch = Patch::Apply(&nothing);
        ask("take back the conditions of an export", api.patch_status(name, &params, &patch)).await?;
        tracing::info!(kind = EXPORT.kind, name = named(export), "conditions taken back");
        Ok(())
    }

    /// Deletes an object that has its name from us.
    async fn delete_own(&self, kind: &Kind, name: &str, proof: Proof) -> Result<()> {
        let Some((api, object)) = self.own(kind, name).await? else { return Ok(()) };
        if !proof.holds(&object) {
            left(kind, name, proof.missing());
            return Ok(());
        }
        delete(&api, kind, &object).await
    }

    /// An object that has its name from us, in our namespace or, for a ClusterProperty, cluster-wide.
    async fn own(&self, kind: &Kind, name: &str) -> Result<Option<(Api<DynamicObject>, ObjectMeta)>> {
        let Some(resource) = kind.served(&self.client).await? else { return Ok(None) };
        let api: Api<DynamicObject> = match kind.kind == CLUSTER_PROPERTY.kind {
            true => Api::all_with(self.client.clone(), &resource),
            false => self.beside(kind),
        };
        let found = ask(&format!("get {} {name}", kind.kind), api.get_metadata_opt(name)).await?;
        Ok(found.map(|object| (api, object.metadata)))
    }

    fn beside(&self, kind: &Kind) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), self.namespace.as_str(), &kind.resource(kind.versions[0]))
    }
}

/// Deletes this very object: one that was made anew under its name stays.
async fn delete(api: &Api<DynamicObject>, kind: &Kind, object: &ObjectMeta) -> Result<()> {
    let name = object.name.as_deref().unwrap_or_default();
    let this = Preconditions { uid: object.uid.clone(), resource_version: None };
    let params = DeleteParams { preconditions: Some(this), ..DeleteParams::background() };
    gone(kind, &named(object), timeout(REQUEST, api.delete(name, &params)).await)
}

fn left(kind: &Kind, name: &str, why: &str) {
    tracing::warn!(kind = kind.kind, name, why, "left as it is");
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

fn named(object: &ObjectMeta) -> String {
    let name = object.name.as_deref().unwrap_or_default();
    object.namespace.as_ref().map_or_else(|| name.to_owned(), |n| format!("{n}/{name}"))
}

#[cfg(test)]
mod tests;
