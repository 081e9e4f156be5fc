//! A cluster as a spec sees it: a namespace at its API server, and a pod to send requests from.

use super::objects::REQUEST;
use anyhow::{Context, Result, bail};
use http::{Method, Request};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, Error};
use sealane_tests::clusters::Environment;
use serde_json::{Value, json};
use std::process::Stdio;
use std::time::Duration;

/// How long one command in a pod may take.
const EXEC: Duration = Duration::from_secs(4);
/// How long one request to the API server may take.
const ANSWER: Duration = Duration::from_secs(10);

/// A kind of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Deployment,
    EndpointSlice,
    Pod,
    Service,
    ServiceExport,
    ServiceImport,
    StatefulSet,
}

impl Kind {
    fn of(object: &Value) -> Result<Self> {
        Ok(match object["kind"].as_str() {
            Some("Deployment") => Kind::Deployment,
            Some("EndpointSlice") => Kind::EndpointSlice,
            Some("Pod") => Kind::Pod,
            Some("Service") => Kind::Service,
            Some("ServiceExport") => Kind::ServiceExport,
            Some("ServiceImport") => Kind::ServiceImport,
            Some("StatefulSet") => Kind::StatefulSet,
            other => bail!("no specification uses objects of the kind {other:?}"),
        })
    }

    fn path(self, namespace: &str) -> String {
        let (group, plural) = match self {
            Kind::Deployment => ("apis/apps/v1", "deployments"),
            Kind::EndpointSlice => ("apis/discovery.k8s.io/v1", "endpointslices"),
            Kind::Pod => ("api/v1", "pods"),
            Kind::Service => ("api/v1", "services"),
            Kind::ServiceExport => ("apis/multicluster.x-k8s.io/v1beta1", "serviceexports"),
            Kind::ServiceImport => ("apis/multicluster.x-k8s.io/v1beta1", "serviceimports"),
            Kind::StatefulSet => ("apis/apps/v1", "statefulsets"),
        };
        format!("/{group}/namespaces/{namespace}/{plural}")
    }
}

/// A cluster.
#[derive(Clone)]
pub(crate) struct Cluster {
    /// The name of its context.
    pub(crate) name: String,
    pub(crate) namespace: String,
    client: Client,
    environment: Environment,
}

impl Cluster {
    /// The cluster of a context. To be called where its API server is reached.
    pub(crate) async fn of(environment: &Environment, name: &str) -> Result<Self> {
        let file = Kubeconfig::read_from(environment.kubeconfig())?;
        let options = KubeConfigOptions { context: Some(name.to_owned()), ..KubeConfigOptions::default() };
        let mut config = Config::from_custom_kubeconfig(file, &options).await?;
        // The machine's proxy does not know these networks.
        config.proxy_url = None;
        let client = Client::try_from(config)?;
        let (name, environment) = (name.to_owned(), environment.clone());
        Ok(Cluster { name, namespace: String::new(), client, environment })
    }

    /// The same cluster, in a namespace of its own.
    pub(crate) async fn in_namespace(&self, namespace: &str) -> Result<Self> {
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        self.ask(Method::POST, "/api/v1/namespaces", Some(&object)).await?.context("it was not made")?;
        Ok(Cluster { namespace: namespace.to_owned(), ..self.clone() })
    }

    /// Begins to remove the namespace.
    pub(crate) async fn leave(&self) -> Result<()> {
        self.ask(Method::DELETE, &format!("/api/v1/namespaces/{}", self.namespace), None).await.map(drop)
    }

    /// Makes an object.
    pub(crate) async fn create(&self, object: &Value) -> Result<()> {
        let path = Kind::of(object)?.path(&self.namespace);
        self.ask(Method::POST, &path, Some(object)).await?.context("there is nowhere to make it")?;
        Ok(())
    }

    /// Changes fields of an object.
    pub(crate) async fn patch(&self, kind: Kind, name: &str, patch: &Value) -> Result<()> {
        let path = format!("{}/{name}", kind.path(&self.namespace));
        self.ask(Method::PATCH, &path, Some(patch)).await?.context("there is none")?;
        Ok(())
    }

    /// An object, if it is there.
    pub(crate) async fn find(&self, kind: Kind, name: &str) -> Result<Option<Value>> {
        self.ask(Method::GET, &format!("{}/{name}", kind.path(&self.namespace)), None).await
    }

    /// An object.
    pub(crate) async fn get(&self, kind: Kind, name: &str) -> Result<Value> {
        let found = self.find(kind, name).await?;
        found.with_context(|| format!("there is no {kind:?} {name} in {}", self.name))
    }

    /// All objects of a kind with these labels.
    pub(crate) async fn list(&self, kind: Kind, labels: &str) -> Result<Vec<Value>> {
        let labels = labels.replace('=', "%3D").replace(',', "%2C").replace('/', "%2F");
        let path = format!("{}?labelSelector={labels}", kind.path(&self.namespace));
        let mut list = self.ask(Method::GET, &path, None).await?.context("no list")?;
        match list["items"].take() {
            Value::Array(items) => Ok(items),
            other => bail!("no list of {kind:?}: {other}"),
        }
    }

    /// Removes an object, which has to be there.
    pub(crate) async fn delete(&self, kind: Kind, name: &str) -> Result<()> {
        let path = format!("{}/{name}", kind.path(&self.namespace));
        self.ask(Method::DELETE, &path, None).await?.context("there is none to remove")?;
        Ok(())
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Option<Value>> {
        let kind = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let said = format!("{method} {path} in {}", self.name);
        let body = body.map(serde_json::to_vec).transpose()?.unwrap_or_default();
        let request = Request::builder().method(method).uri(path).header("Content-Type", kind).body(body)?;
        let answer = tokio::time::timeout(ANSWER, self.client.request::<Value>(request)).await;
        match answer.with_context(|| format!("{said}: no answer"))? {
            Ok(object) => Ok(Some(object)),
            Err(Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(error).context(said),
        }
    }

    /// What a shell in the requesting pod prints, whatever becomes of its commands.
    pub(crate) async fn shell(&self, script: &str) -> Result<String> {
        self.shell_for(script, EXEC).await
    }

    /// The same, of a script that may take this long.
    pub(crate) async fn shell_for(&self, script: &str, limit: Duration) -> Result<String> {
        let command = self.environment.command("kubectl")?;
        let mut command = tokio::process::Command::from(command);
        command.args(["--context", &self.name, "--namespace", &self.namespace]);
        command.args(["exec", REQUEST, "--", "sh", "-c", script]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let output = tokio::time::timeout(limit, command.output()).await;
        let output = output.with_context(|| format!("`{script}` in {} took too long", self.name))??;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What kubectl prints.
    pub(crate) async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let namespace = ["--namespace", self.namespace.as_str()];
        self.environment.kubectl(&self.name, &[&namespace, arguments].concat()).await
    }
}
