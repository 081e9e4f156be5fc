//! `sealane cluster remove` and `sealane server remove`.

use super::admin;
use crate::context::Context as AdminContext;
use crate::output::{self, Format};
use anyhow::Result;
use sealane_core::name::ClusterName;
use sealane_proto::federation::v1::{RemoveClusterRequest, RemoveServerRequest};
use serde::Serialize;

#[derive(Debug, Serialize)]
struct Removed {
    removed: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<String>,
}

/// Revokes a cluster.
///
/// # Errors
/// When there is none of the name, or the write is refused.
pub async fn cluster(context: &AdminContext, name: &ClusterName, format: Format) -> Result<()> {
    let mut client = admin::connect(context)?;
    let request = RemoveClusterRequest { key: admin::key()?, name: name.to_string() };
    let reply =
        admin::write(context, async || Ok(client.remove_cluster(request.clone()).await?.into_inner()))
            .await?;
    let revision = reply.revision.map(|r| format!("{}.{}", r.generation, r.index));
    output::print(format, &Removed { removed: name.to_string(), revision }, |r| {
        format!("removed cluster {} at revision {}", r.removed, output::or_dash(r.revision.as_ref()))
    })
}

/// Takes a server out.
///
/// # Errors
/// When there is none of the id, or the write is refused.
pub async fn server(context: &AdminContext, id: u64, format: Format) -> Result<()> {
    let mut client = admin::connect(context)?;
    let request = RemoveServerRequest { key: admin::key()?, id };
    admin::write(context, async || Ok(client.remove_server(request.clone()).await?.into_inner())).await?;
    output::print(format, &Removed { removed: id.to_string(), revision: None }, |r| {
        format!("removed server {}: never start it again", r.removed)
    })
}
