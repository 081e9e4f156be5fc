//! Programs that others wrote and nobody ships: Kubernetes, etcd, CoreDNS, Helm. They are built from their Go modules,
//! once, into a cache outside the checkout.
//!
//! Law: what is built is stated in `tests/tools/*/go.mod` and `go.sum`, and the cache's folder bears their hash; a tool
//! is in its place whole or not at all. Not here: what the tools are used for.

mod build;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// Where the tools are built; without it `~/.cache/sealane-tools`.
pub const CACHE: &str = "SEALANE_TOOLS";

/// One program of a tool module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tool {
    module: &'static str,
    name: &'static str,
    package: &'static str,
}

impl Tool {
    const fn kubernetes(name: &'static str, package: &'static str) -> Self {
        Tool { module: "k8s", name, package }
    }

    /// The name of its binary.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Where its binary is; built first where it is missing, which takes from seconds to minutes and is said on
    /// standard error.
    ///
    /// # Errors
    /// When Go is missing, or does not build it.
    pub fn path(&self) -> Result<PathBuf> {
        let binary = self.binary()?;
        if !binary.exists() {
            build::build(self, &sources(self.module), &binary)
                .with_context(|| format!("{} is not there and can not be built", self.name))?;
        }
        Ok(binary)
    }

    /// The folder of its binary, and of the others of its module, if it is built.
    ///
    /// # Errors
    /// When the cache's place is not known.
    pub fn folder(&self) -> Result<Option<PathBuf>> {
        let binary = self.binary()?;
        Ok(binary.parent().filter(|_| binary.exists()).map(Path::to_owned))
    }

    /// Where its binary is, or will be.
    fn binary(&self) -> Result<PathBuf> {
        let folder = format!("{}-{}", self.module, hash(&sources(self.module))?);
        Ok(cache()?.join(folder).join("bin").join(self.name))
    }

    /// The same, without blocking the thread that asks.
    ///
    /// # Errors
    /// As [`Tool::path`].
    pub async fn ready(&'static self) -> Result<PathBuf> {
        tokio::task::spawn_blocking(|| self.path()).await.context("the build was not waited for")?
    }
}

/// The store of the API server.
pub static ETCD: Tool = Tool::kubernetes("etcd", "go.etcd.io/etcd/server/v3");
/// The API server.
pub static API_SERVER: Tool = Tool::kubernetes("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver");
/// Deployments, owner references, namespaces, ServiceAccounts, EndpointSlices: all that a cluster does by itself.
pub static CONTROLLERS: Tool =
    Tool::kubernetes("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager");
/// Which pod goes to which node.
pub static SCHEDULER: Tool = Tool::kubernetes("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler");
/// Runs the pods of a node.
pub static KUBELET: Tool = Tool::kubernetes("kubelet", "k8s.io/kubernetes/cmd/kubelet");
/// Makes the addresses of Services work on a node.
pub static KUBE_PROXY: Tool = Tool::kubernetes("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy");
/// The command of Kubernetes' users.
pub static KUBECTL: Tool = Tool::kubernetes("kubectl", "k8s.io/kubernetes/cmd/kubectl");
/// The DNS server of clusters.
pub static COREDNS: Tool = Tool { module: "coredns", name: "coredns", package: "github.com/coredns/coredns" };
/// Installs charts.
pub static HELM: Tool = Tool { module: "helm", name: "helm", package: "helm.sh/helm/v4/cmd/helm" };
/// What holds a pod's namespaces.
pub static PAUSE: Tool = Tool { module: "pause", name: "pause", package: "." };

/// Every tool, those first that are needed first.
pub static ALL: [&Tool; 10] =
    [&ETCD, &API_SERVER, &KUBECTL, &CONTROLLERS, &SCHEDULER, &KUBELET, &KUBE_PROXY, &COREDNS, &PAUSE, &HELM];

/// Why these can not be had here, if they can not: they are not built, and there is no Go.
#[must_use]
pub fn missing(tools: &[&'static Tool]) -> Option<String> {
    let built = |tool: &&Tool| tool.binary().is_ok_and(|binary| binary.exists());
    (!tools.iter().all(built) && !build::go_is_there()).then(|| build::NO_GO.to_owned())
}

/// The cache's folder.
///
/// # Errors
/// When neither the variable nor a home is set.
pub fn cache() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os(CACHE) {
        return std::path::absolute(folder).context("no working directory");
    }
    let home = std::env::var_os("HOME")
        .with_context(|| format!("neither {CACHE} nor HOME is set: nowhere to build the tools"))?;
    Ok(Path::new(&home).join(".cache/sealane-tools"))
}

fn sources(module: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tools").join(module)
}

/// The first 12 hexadecimal digits of the hash of a module: of go.mod, go.sum and its own Go files, if it has any.
fn hash(sources: &Path) -> Result<String> {
    let entries = std::fs::read_dir(sources).with_context(|| format!("there is no {}", sources.display()))?;
    let mut files = entries.map(|e| Ok(e?.path())).collect::<Result<Vec<_>>>()?;
    files.retain(|f| f.extension().is_some_and(|e| e == "mod" || e == "sum" || e == "go"));
    files.sort();
    ensure!(!files.is_empty(), "{} is no Go module", sources.display());
    let mut hash = Sha256::new();
    for file in files {
        hash.update(std::fs::read(&file).with_context(|| format!("can not read {}", file.display()))?);
    }
    Ok(hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect())
}

/// The version that a module's go.mod requires of another, `v1.37.1`.
fn required(sources: &Path, module: &str) -> Result<String> {
    let path = sources.join("go.mod");
    let text = std::fs::read_to_string(&path).with_context(|| format!("can not read {}", path.display()))?;
    let version = text.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip_while(|word| *word == "require");
        (words.next() == Some(module)).then(|| words.next()).flatten().map(str::to_owned)
    });
    version.filter(|v| v.starts_with('v')).with_context(|| format!("{} requires no {module}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tool_is_a_program_that_its_module_states() {
        for tool in ALL {
            let module = std::fs::read_to_string(sources(tool.module).join("go.mod")).unwrap();
            let stated = module.lines().any(|l| l.split_whitespace().last() == Some(tool.package));
            assert!(stated || tool.package == ".", "{} is no tool of {}", tool.package, tool.module);
        }
    }

    #[test]
    fn the_hash_changes_with_the_sums() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("go.mod"), "module m\n\nrequire a.b/c v1.2.3 // indirect\n")
            .unwrap();
        let before = hash(folder.path()).unwrap();
        assert_eq!((before.len(), required(folder.path(), "a.b/c").unwrap()), (12, "v1.2.3".to_owned()));
        std::fs::write(folder.path().join("notes.txt"), "x").unwrap();
        assert_eq!(hash(folder.path()).unwrap(), before);
        std::fs::write(folder.path().join("go.sum"), "a.b/c v1.2.3 h1:x\n").unwrap();
        assert_ne!(hash(folder.path()).unwrap(), before);
    }
}
