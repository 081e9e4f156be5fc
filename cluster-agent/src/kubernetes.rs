//! The way to the cluster's API server.
//!
//! Every request has an end: connecting, writing and waiting for an answer are bounded here, for whoever uses the client.
//! A watch is a request whose answer lasts [`WATCH`]; with it, an API server that went silent is noticed.

use crate::args::Kubernetes;
use k8s_openapi::api::core::v1::Namespace as K8sNamespace;
use kube::api::{Api, ListParams};
use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use sealane_core::name::{ClusterUid, NameError};
use sealane_trust::tls;
use std::time::Duration;
use tokio::time::timeout;

/// How long the API server may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// How long one request, but for watches, may take: for whoever bounds a call.
pub const REQUEST: Duration = Duration::from_secs(10);
/// How long one watch lasts; the next one goes on where it ended.
pub const WATCH: Duration = Duration::from_secs(50);
/// How long a connection may be silent while an answer is due: a watch has its bookmark at its end at the latest.
const SILENCE: Duration = WATCH.saturating_add(REQUEST);

/// There is no way to the API server.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The kubeconfig can not be used.
    #[error("--kubeconfig {path}: {source}", path = .path.display())]
    Kubeconfig {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        source: KubeconfigError,
    },
    /// No kubeconfig was given, and this is no pod.
    #[error("this is no pod of a cluster (give --kubeconfig): {0}")]
    InCluster(#[from] InClusterError),
    /// The configuration makes no client.
    #[error("can not make a client of the API server: {0}")]
    Client(#[from] kube::Error),
}

/// Whether a write came too late: the object was changed, made or deleted meanwhile.
pub(crate) fn is_overtaken(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409 || status.is_not_found())
}

/// A client by a kubeconfig, else by what every pod is given. It dials nothing yet.
///
/// # Errors
/// When the kubeconfig, or the pod's token and root, can not be read.
pub async fn client(args: &Kubernetes) -> Result<Client, ClientError> {
    let mut config = match &args.kubeconfig {
        Some(path) => {
            let refused = |source| ClientError::Kubeconfig { path: path.clone(), source };
            let options = KubeConfigOptions { context: args.context.clone(), ..KubeConfigOptions::default() };
            let file = Kubeconfig::read_from(path).map_err(refused)?;
            Config::from_custom_kubeconfig(file, &options).await.map_err(refused)?
        }
        None => Config::incluster()?,
    };
    config.connect_timeout = Some(CONNECT);
    config.write_timeout = Some(REQUEST);
    config.read_timeout = Some(SILENCE);
    // Each loop tries again by itself and in its own time: a write that waited in here might begin too late.
    config.default_retry = false;
    // Time that a connection spent idle is not time that an answer took.
    config.reset_reader_on_write = true;
    // The client takes its cryptography from the process. Somebody may have given it already; there is only one kind.
    let _ = rustls::crypto::CryptoProvider::clone(&tls::provider()).install_default();
    Ok(Client::try_from(config)?)
}

/// Which cluster this is could not be found out.
#[derive(Debug, thiserror::Error)]
pub enum UidError {
    /// The API server refused, or could not be reached.
    #[error("can not list the namespace kube-system (the agent's role needs list): {0}")]
    Call(#[from] kube::Error),
    /// The API server did not answer.
    #[error("the API server has not told the namespace kube-system for {REQUEST:?}")]
    Silent,
    /// There is none yet: the API server makes it when it begins.
    #[error("there is no namespace kube-system yet")]
    Absent,
    /// It is no UID.
    #[error(transparent)]
    Name(#[from] NameError),
}

/// Which cluster this is: the UID of its namespace kube-system, which lives as long as the cluster does.
///
/// # Errors
/// When the API server does not tell now.
pub async fn cluster_uid(client: &Client) -> Result<ClusterUid, UidError> {
    // By a list, which the agent may do of all namespaces anyway.
    let only = ListParams::default().fields("metadata.name=kube-system").limit(1);
    let namespaces: Api<K8sNamespace> = Api::all(client.clone());
    let found = timeout(REQUEST, namespaces.list_metadata(&only)).await.map_err(|_| UidError::Silent)??;
    let uid = found.items.into_iter().next().and_then(|namespace| namespace.metadata.uid);
    Ok(uid.ok_or(UidError::Absent)?.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(kubeconfig: &std::path::Path, context: Option<&str>) -> Kubernetes {
        Kubernetes {
            kubeconfig: Some(kubeconfig.to_owned()),
            context: context.map(str::to_owned),
            namespace: "sealane-system".parse().unwrap(),
            replica: "agent-0".to_owned(),
        }
    }

    #[tokio::test]
    async fn a_kubeconfig_is_used_or_named_in_the_refusal() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config");
        let missing = client(&args(&path, None)).await.err().unwrap().to_string();
        assert!(missing.starts_with(&format!("--kubeconfig {}", path.display())), "{missing}");
        let config = "apiVersion: v1\nkind: Config\ncurrent-context: east\n\
            contexts: [{name: east, context: {cluster: east, user: me, namespace: here}}]\n\
            clusters: [{name: east, cluster: {server: 'https://127.0.0.1:1'}}]\n\
            users: [{name: me, user: {token: secret}}]\n";
        std::fs::write(&path, config).unwrap();
        assert_eq!(client(&args(&path, None)).await.unwrap().default_namespace(), "here");
        assert!(matches!(client(&args(&path, Some("west"))).await, Err(ClientError::Kubeconfig { .. })));
    }
}
