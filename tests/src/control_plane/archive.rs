//! What happened in a cluster, also before its API server was started anew.
//!
//! An API server answers watches from a cache that begins with itself, as in every cluster of the field: it can not say what
//! was before. etcd can, and a second API server without that cache asks it. Nobody but a test's own questions meets that one.

use super::{ControlPlane, READY, server_words};
use crate::control_plane::program::Program;
use crate::kubernetes::ask;
use crate::kubernetes::kubeconfig::{self, Access};
use crate::tools;
use anyhow::{Context, Result};
use sealane::local::Lab;
use sealane::local::wait::until;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Its port, beside that of the API server.
const PORT: u16 = 6444;

/// The second API server, while it runs.
#[derive(Debug)]
pub struct Archive<'a> {
    plane: &'a ControlPlane,
    kubeconfig: PathBuf,
    _server: Program,
}

impl ControlPlane {
    /// Opens the archive, whether or not the API server runs.
    ///
    /// # Errors
    /// When it does not become ready, with the end of its log.
    pub async fn archive(&self, lab: &Lab) -> Result<Archive<'_>> {
        let name = format!("{}-archive", self.shape.name);
        let address = SocketAddr::new(self.address, PORT);
        let kubeconfig = self.folder.join("archive.kubeconfig");
        let server = format!("https://{address}");
        let access = Access { name: &name, server, pki: self.pki.folder(), client: "admin" };
        kubeconfig::write(&kubeconfig, &[access])?;
        let mut words = server_words(&self.shape, self.address, self.pki.folder());
        words.extend([format!("--secure-port={PORT}"), "--watch-cache=false".to_owned()]);
        let binary = tools::API_SERVER.ready().await?;
        let mut server = Program::new(lab.launcher().logs(), name.clone(), binary, words);
        server.start()?;
        let authority = self.authority();
        let what = format!("{name} is ready");
        let looked = until(&what, READY, async || ask::ready(address, &authority).await.map(Some));
        looked.await.with_context(|| server.tail())?;
        Ok(Archive { plane: self, kubeconfig, _server: server })
    }
}

impl Archive<'_> {
    /// What kubectl prints of it, as an admin.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let kubeconfig = self.kubeconfig.display().to_string();
        self.plane.kubectl(&[&["--kubeconfig", &kubeconfig], arguments].concat()).await
    }
}
