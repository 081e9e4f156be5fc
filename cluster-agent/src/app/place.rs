//! Where the agent stands: between two directories, or in a Kubernetes cluster.

use super::tasks::Tasks;
use crate::args::{Kubernetes, Source};
use crate::backoff::Backoff;
use crate::kubernetes;
use crate::lease::{self, Keeper, Leadership, Name, Standing};
use crate::sink::files::Writer;
use crate::source::{self, SourceEvent};
use crate::state::{ApiServer, StateDir, StateError};
use crate::status::Status;
use crate::vault::{Secrets, Vault};
use anyhow::{Context, ensure};
use sealane_core::name::ClusterUid;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Where the cluster is read from and written to.
pub(super) enum Place {
    /// Directories.
    Files { manifests: PathBuf, out: PathBuf, writer: Writer },
    /// An API server.
    Kubernetes { client: kube::Client, args: Kubernetes },
}

impl Place {
    pub(super) async fn take(source: Source) -> anyhow::Result<Self> {
        Ok(match source {
            Source::Manifests { manifests, out } => {
                let writer = Writer::open(&out).context("--out")?;
                Place::Files { manifests, out, writer }
            }
            Source::Kubernetes(args) => Place::Kubernetes { client: kubernetes::client(&args).await?, args },
        })
    }

    /// What must be so before a join token is used up.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        if let Place::Files { manifests, .. } = self {
            let found = manifests.metadata();
            let found = found.with_context(|| format!("--manifests {}", manifests.display()))?;
            ensure!(found.is_dir(), "--manifests {} is not a directory", manifests.display());
        }
        Ok(())
    }

    /// Where keys and certificates are kept.
    pub(super) fn vault(&self, state: &StateDir) -> Vault {
        match self {
            Place::Files { .. } => Vault::Directory(state.clone()),
            Place::Kubernetes { client, args } => {
                Vault::Secrets(Secrets::new(client.clone(), &args.namespace))
            }
        }
    }

    /// How others find the Secrets of the vault; `None` where it is the directory.
    pub(super) fn api_server(&self) -> anyhow::Result<Option<ApiServer>> {
        let Place::Kubernetes { args, .. } = self else { return Ok(None) };
        let kubeconfig = args.kubeconfig.as_ref().map(std::path::absolute).transpose();
        let (context, namespace) = (args.context.clone(), args.namespace.to_string());
        Ok(Some(ApiServer { kubeconfig: kubeconfig.context("--kubeconfig")?, context, namespace }))
    }

    /// Which Kubernetes cluster this is, asked for as long as it takes; `None` where it is none.
    pub(super) async fn uid(&self) -> Option<ClusterUid> {
        let Place::Kubernetes { client, .. } = self else { return None };
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        loop {
            match kubernetes::cluster_uid(client).await {
                Ok(uid) => return Some(uid),
                Err(error) => {
                    tracing::warn!(%error, "can not find out which cluster this is yet");
                    tokio::time::sleep(backoff.pause()).await;
                }
            }
        }
    }

    /// Takes part in the election of the replica that writes; where there are no replicas it is this one. `writers` are
    /// those who write under the Lease.
    pub(super) fn leadership(
        &self,
        tasks: &Tasks,
        writers: &TaskTracker,
        (state, status): (&StateDir, &Arc<Status>),
        stop: &CancellationToken,
    ) -> Result<Leadership, StateError> {
        let Place::Kubernetes { client, args } = self else { return Ok(Leadership::alone()) };
        let standing = watch::Sender::new(Standing::Follower);
        let leadership = Leadership::new(standing.subscribe());
        // Each process has its own: a pod that was replaced by force may still run on a node that nobody reaches.
        let name = Name::take(state, &args.replica)?;
        let keeper = Keeper { name, standing, status: status.clone(), writers: writers.clone() };
        tasks.spawn(lease::keep(client.clone(), args.namespace.clone(), keeper, stop.clone()));
        Ok(leadership)
    }

    /// Begins to read the cluster; it ends with its receiver.
    pub(super) fn follow(&self, tasks: &Tasks, events: mpsc::Sender<SourceEvent>) {
        match self {
            Place::Files { manifests, .. } => {
                tasks.spawn(source::manifests::run(manifests.clone(), events));
            }
            Place::Kubernetes { client, .. } => {
                tasks.spawn(source::kubernetes::run(client.clone(), events));
            }
        }
    }
}
