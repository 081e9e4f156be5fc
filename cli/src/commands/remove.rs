//! `sealane cluster remove` and `sealane server remove`.

use super::admin;
use crate::client::StatusClient;
use crate::context::{Context as AdminContext, Reach};
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

#[derive(Debug, Serialize)]
struct RemovedServer {
    removed: String,
    /// Whether it still ran.
    ran: bool,
}

/// Takes a server out, and says what becomes of one that still runs.
///
/// # Errors
/// When there is none of the id, or the write is refused.
pub async fn server(context: &AdminContext, id: u64, format: Format) -> Result<()> {
    let ran = runs(context, id).await?;
    take_out(context, id).await?;
    output::print(format, &RemovedServer { removed: id.to_string(), ran }, said)
}

/// Takes a server out.
///
/// # Errors
/// When there is none of the id, or the write is refused.
pub async fn take_out(context: &AdminContext, id: u64) -> Result<()> {
    let mut client = admin::connect(context)?;
    let request = RemoveServerRequest { key: admin::key()?, id };
    admin::write(context, async || Ok(client.remove_server(request.clone()).await?.into_inner())).await?;
    Ok(())
}

/// Whether a server answers for itself.
async fn runs(context: &AdminContext, id: u64) -> Result<bool> {
    let client = StatusClient::new(context.clone())?;
    let servers = client.servers().await?.servers;
    let known = servers.into_iter().find(|s| s.id == id);
    let Some((Some(grpc), Some(status))) = known.map(|s| (s.address, s.status_address)) else {
        return Ok(false);
    };
    // Another one may answer there: a server whose disk was lost comes back under another id.
    Ok(client.at(Reach { grpc, status }).status().await.is_ok_and(|status| status.server == id))
}

fn said(removed: &RemovedServer) -> String {
    let RemovedServer { removed: id, ran } = removed;
    if !ran {
        return format!("removed server {id}: never start it again");
    }
    format!(
        "removed server {id}, which still ran: it ends now, and at each further start. To have it come back, as a new server, empty \
         its directory and let it join. On Kubernetes its pod is restarted, again and again, until there are fewer servers.replicas \
         (the last pods go); or delete its PersistentVolumeClaim (state-POD) and then the pod, which joins as a new server"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_becomes_of_a_server_that_runs_is_said() {
        let of = |ran| said(&RemovedServer { removed: "3".to_owned(), ran });
        assert_eq!(of(false), "removed server 3: never start it again");
        assert!(of(true).starts_with("removed server 3, which still ran: it ends now"));
    }
}
