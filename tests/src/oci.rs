//! Container images without a container engine: an OCI archive, written from what is to be in it.
//!
//! Law: the same content is the same bytes, hence the same digest: no clock, no machine's user, no order of a directory
//! enters an image. Layers are not compressed: a compressor's next version would change every digest.
//!
//! `ctr images import`, `podman load`, `docker load`, `skopeo` and `kind load image-archive` read what is written here.

mod elf;
pub mod layer;
pub mod product;
mod tar;

pub use layer::Layer;

use anyhow::{Context, Result, ensure};
use data_encoding::HEXLOWER;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// What is in an image, and how it is run.
#[derive(Debug, Clone, Default)]
pub struct Image {
    /// Under which names it is imported, in full: `docker.io/library/sealane:0.1.0`.
    pub names: Vec<String>,
    /// The program and its first arguments; none where a pod states the whole command.
    pub entrypoint: Vec<String>,
    /// The arguments that a pod's `args` take the place of.
    pub command: Vec<String>,
    /// `UID:GID`; empty for root.
    pub user: String,
    /// Environment variables.
    pub environment: BTreeMap<String, String>,
    /// Where the program starts; empty for `/`.
    pub directory: String,
    /// Labels, such as `org.opencontainers.image.version`.
    pub labels: BTreeMap<String, String>,
    /// From the lowest to the uppermost.
    pub layers: Vec<Layer>,
}

/// One part of an archive, named by what it is.
struct Blob {
    digest: String,
    bytes: Vec<u8>,
}

impl Blob {
    fn new(bytes: Vec<u8>) -> Self {
        let digest = HEXLOWER.encode(&Sha256::digest(&bytes));
        Blob { digest, bytes }
    }

    fn json(value: &Value) -> Self {
        Self::new(value.to_string().into_bytes())
    }

    fn id(&self) -> String {
        format!("sha256:{}", self.digest)
    }

    fn path(&self) -> String {
        format!("blobs/sha256/{}", self.digest)
    }

    fn descriptor(&self, media_type: &str) -> Value {
        json!({"mediaType": media_type, "digest": self.id(), "size": self.bytes.len()})
    }
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

impl Image {
    /// Writes the image as an OCI archive, and says its digest (`sha256:…`, that of the manifest).
    ///
    /// # Errors
    /// When a name is not whole, or the file can not be written.
    pub fn write(&self, path: &Path) -> Result<String> {
        let file = File::create(path).with_context(|| format!("can not make {}", path.display()))?;
        let mut out = BufWriter::new(file);
        let digest = self.write_to(&mut out)?;
        out.into_inner()?.sync_all().with_context(|| format!("can not write {}", path.display()))?;
        Ok(digest)
    }

    /// The same, to anything that takes bytes.
    ///
    /// # Errors
    /// When a name is not whole, or the writer refuses.
    pub fn write_to(&self, out: &mut impl Write) -> Result<String> {
        for name in &self.names {
            whole(name)?;
        }
        let layers = self.layers.iter().map(|l| Ok(Blob::new(l.to_tar()?))).collect::<Result<Vec<_>>>()?;
        let config = Blob::json(&self.config(&layers));
        let manifest = Blob::json(&json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config.descriptor(CONFIG),
            "layers": layers.iter().map(|l| l.descriptor(LAYER)).collect::<Vec<_>>(),
        }));
        let index = self.index(&manifest);
        let docker = json!([{
            "Config": config.path(),
            "RepoTags": self.names,
            "Layers": layers.iter().map(Blob::path).collect::<Vec<_>>(),
        }]);
        let mut tar = tar::Writer::new(out);
        tar.file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        tar.file("index.json", 0o644, index.to_string().as_bytes())?;
        tar.file("manifest.json", 0o644, docker.to_string().as_bytes())?;
        let mut blobs = [&manifest, &config].into_iter().chain(&layers).collect::<Vec<_>>();
        blobs.sort_by(|a, b| a.digest.cmp(&b.digest));
        blobs.dedup_by(|a, b| a.digest == b.digest);
        for blob in blobs {
            tar.file(&blob.path(), 0o644, &blob.bytes)?;
        }
        tar.finish()?;
        Ok(manifest.id())
    }

    fn config(&self, layers: &[Blob]) -> Value {
        let mut run = serde_json::Map::new();
        let mut set = |key: &str, value: Value, empty: bool| {
            if !empty {
                run.insert(key.to_owned(), value);
            }
        };
        let environment = self.environment.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>();
        set("Entrypoint", json!(self.entrypoint), self.entrypoint.is_empty());
        set("Cmd", json!(self.command), self.command.is_empty());
        set("User", json!(self.user), self.user.is_empty());
        set("Env", json!(environment), environment.is_empty());
        set("WorkingDir", json!(self.directory), self.directory.is_empty());
        set("Labels", json!(self.labels), self.labels.is_empty());
        json!({
            "architecture": architecture(),
            "os": "linux",
            "config": run,
            "rootfs": {"type": "layers", "diff_ids": layers.iter().map(Blob::id).collect::<Vec<_>>()},
        })
    }

    /// The manifest once for every name; containerd takes the name from the first annotation, others the tag from the
    /// second.
    fn index(&self, manifest: &Blob) -> Value {
        let entry = |annotations: Value| {
            let mut entry = manifest.descriptor(MANIFEST);
            entry["platform"] = json!({"architecture": architecture(), "os": "linux"});
            entry["annotations"] = annotations;
            entry
        };
        let named = self.names.iter().map(|name| {
            let tag = name.rsplit(':').next().unwrap_or_default();
            entry(json!({"io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag}))
        });
        let manifests = if self.names.is_empty() { vec![entry(json!({}))] } else { named.collect() };
        json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests})
    }
}

/// The architecture, as images name it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// A name that containerd finds again under the name that a pod asks for: registry, path and tag.
fn whole(name: &str) -> Result<()> {
    let (path, tag) = name.rsplit_once(':').unwrap_or((name, ""));
    let registry = path.split('/').next().unwrap_or_default();
    let tag_is_good = !tag.is_empty() && !tag.contains('/');
    ensure!(
        tag_is_good && path.contains('/') && registry.contains(['.', ':']),
        "{name:?} is no whole name of an image: write REGISTRY/PATH:TAG, as in docker.io/library/sealane:0.1.0"
    );
    Ok(())
}

#[cfg(test)]
mod tests;
