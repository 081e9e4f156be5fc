//! Kubeconfig files, written as JSON, which is YAML too. Keys and certificates are inside: a file can be moved.

use anyhow::{Context, Result};
use data_encoding::BASE64;
use serde_json::{Value, json};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// One cluster and who asks it.
#[derive(Debug, Clone)]
pub struct Access<'a> {
    /// The name of the context, the cluster and the user.
    pub name: &'a str,
    /// `https://ADDRESS:PORT`.
    pub server: String,
    /// The folder of the cluster's certificates.
    pub pki: &'a Path,
    /// The client's files in it, without their endings.
    pub client: &'a str,
}

/// Writes a file of one context or more; the first is the current one.
///
/// # Errors
/// When a certificate can not be read, or the file can not be written.
pub fn write(path: &Path, access: &[Access<'_>]) -> Result<()> {
    let text = serde_json::to_string_pretty(&document(access)?)?;
    // Whoever reads it while it is written again sees the old one or the new one.
    let unfinished = path.with_extension("new");
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(&unfinished);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written
        .and_then(|()| std::fs::rename(&unfinished, path))
        .with_context(|| format!("can not write {}", path.display()))
}

fn document(access: &[Access<'_>]) -> Result<Value> {
    let mut clusters = Vec::new();
    let mut users = Vec::new();
    let mut contexts = Vec::new();
    for Access { name, server, pki, client } in access {
        let inside = |file: String| {
            std::fs::read(pki.join(&file))
                .map(|b| BASE64.encode(&b))
                .with_context(|| format!("can not read {file}"))
        };
        let authority = inside("ca.pem".to_owned())?;
        clusters.push(json!({"name": name, "cluster": {
            "server": server, "certificate-authority-data": authority,
        }}));
        users.push(json!({"name": name, "user": {
            "client-certificate-data": inside(format!("{client}.pem"))?,
            "client-key-data": inside(format!("{client}.key"))?,
        }}));
        contexts.push(json!({"name": name, "context": {"cluster": name, "user": name}}));
    }
    Ok(json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": clusters,
        "users": users,
        "contexts": contexts,
        "current-context": access.first().map(|a| a.name).unwrap_or_default(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_two_clusters_names_the_first_as_current() {
        let pki = tempfile::tempdir().unwrap();
        for file in ["ca.pem", "admin.pem", "admin.key"] {
            std::fs::write(pki.path().join(file), file).unwrap();
        }
        let access =
            |name, server: &str| Access { name, server: server.into(), pki: pki.path(), client: "admin" };
        let path = pki.path().join("kubeconfig");
        write(&path, &[access("east", "https://10.0.0.1:6443"), access("west", "https://10.0.0.2:6443")])
            .unwrap();
        let read: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(read["current-context"], "east");
        assert_eq!(
            read["contexts"][1],
            json!({"name": "west", "context": {"cluster": "west", "user": "west"}})
        );
        assert_eq!(
            read["clusters"][1],
            json!({"name": "west", "cluster": {
                "server": "https://10.0.0.2:6443", "certificate-authority-data": BASE64.encode(b"ca.pem"),
            }})
        );
        assert_eq!(read["users"][0]["user"]["client-key-data"], BASE64.encode(b"admin.key"));
    }
}
