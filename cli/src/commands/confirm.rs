//! `sealane cluster confirm-lapses` and `sealane server raise-version`.

use super::admin;
use crate::context::Context as AdminContext;
use crate::output::{self, Format};
use anyhow::Result;
use sealane_proto::federation::v1::{ConfirmLapsesRequest, RaiseVersionRequest};
use serde::Serialize;

#[derive(Debug, Serialize)]
struct Confirmed {
    lapsed: u32,
}

/// Confirms that the clusters that fell silent at once are gone indeed.
///
/// # Errors
/// When there is no leader, or it refuses.
pub async fn lapses(context: &AdminContext, format: Format) -> Result<()> {
    let mut client = admin::connect(context)?;
    let reply = admin::write(context, async || {
        Ok(client.confirm_lapses(ConfirmLapsesRequest {}).await?.into_inner())
    })
    .await?;
    output::print(format, &Confirmed { lapsed: reply.lapsed }, |c| match c.lapsed {
        0 => "nothing to confirm: no lapse is held back".to_owned(),
        1 => "1 lease lapses".to_owned(),
        count => format!("{count} leases lapse"),
    })
}

#[derive(Debug, Serialize)]
struct Raised {
    version: u32,
}

/// Confirms that every server was upgraded for good.
///
/// # Errors
/// When a server does not understand the newest version, or does not answer.
pub async fn version(context: &AdminContext, format: Format) -> Result<()> {
    let mut client = admin::connect(context)?;
    let reply =
        admin::write(context, async || Ok(client.raise_version(RaiseVersionRequest {}).await?.into_inner()))
            .await?;
    output::print(format, &Raised { version: reply.version }, |r| {
        format!("the federation is at command version {}", r.version)
    })
}
