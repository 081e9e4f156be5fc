//! The administration calls of a federation server.

use crate::context::Context as AdminContext;
use crate::exit::Failure;
use anyhow::{Context, Result};
use sealane_core::command::admin_key;
use sealane_proto::federation::v1::admin_client::AdminClient;
use sealane_trust::clock;
use sealane_trust::grpc::{DialOptions, channel};
use sealane_trust::tls::ALPN_H2;
use std::time::Duration;
use tonic::transport::Channel;
use tonic::{Code, Status};

/// How long a write may take: a few elections.
const TIMEOUT: Duration = Duration::from_secs(15);
/// How often a write whose fate is unknown is sent again, under the same key.
const TRIES: usize = 5;
/// The pause before it is sent again.
const PAUSE: Duration = Duration::from_millis(300);

/// A client of the administration service of any server.
///
/// # Errors
/// When the context's addresses are malformed.
pub fn connect(context: &AdminContext) -> Result<AdminClient<Channel>> {
    let addresses: Vec<String> = context.servers().iter().map(|s| s.grpc.clone()).collect();
    let options = DialOptions { timeout: Some(TIMEOUT), ..DialOptions::default() };
    let channel = channel(&addresses, context.tls(&[ALPN_H2]), &options).context("context.json")?;
    Ok(AdminClient::new(channel))
}

/// The key of a command that is issued now: all tries under it are one.
///
/// # Errors
/// When the system gives no random bytes.
pub fn key() -> Result<Vec<u8>> {
    Ok(admin_key(clock::now(), sealane_trust::random()?).to_vec())
}

/// Makes one write, again while its fate is unknown: its key makes of all tries one write.
///
/// # Errors
/// When it is refused, or nobody could say what became of it.
pub async fn write<T>(context: &AdminContext, mut call: impl AsyncFnMut() -> Result<T, Status>) -> Result<T> {
    let mut tries = 1;
    loop {
        match call().await {
            Ok(reply) => return Ok(reply),
            Err(status) if may_retry(&status) && tries < TRIES => {
                tracing::warn!(code = ?status.code(), message = status.message(), "trying again");
                tries += 1;
                tokio::time::sleep(PAUSE).await;
            }
            Err(status) => return Err(failure(context, &status)),
        }
    }
}

fn may_retry(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::Unknown | Code::DeadlineExceeded | Code::Aborted)
}

fn failure(context: &AdminContext, status: &Status) -> anyhow::Error {
    let message = status.message().to_owned();
    match status.code() {
        Code::NotFound => Failure::NotFound(message).into(),
        Code::Unavailable => {
            let tried: Vec<&str> = context.servers().iter().map(|s| s.grpc.as_str()).collect();
            anyhow::Error::new(Failure::Unreachable(tried.join(", "))).context(message)
        }
        Code::DeadlineExceeded | Code::Unknown | Code::Aborted | Code::Internal => {
            anyhow::anyhow!(
                "{message} ({:?}): it may have been done; look before you repeat it",
                status.code()
            )
        }
        _ => Failure::Refused(message).into(),
    }
}
