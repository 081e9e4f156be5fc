//! One look at an issuer: its discovery document, then its keys.

use super::Source;
use sealane_core::state::IssuerKey;
use sealane_trust::oidc::{self, DiscoveryError, JwksError, MAX_DOCUMENT};
use sealane_trust::{CertificateDer, rustls, tls};
use std::time::Duration;

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(2);
/// How long one document may take.
const DOCUMENT: Duration = Duration::from_secs(4);
/// Where OpenID providers say what they are.
const WELL_KNOWN: &str = "/.well-known/openid-configuration";

/// Keys can not be fetched.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    /// There is nothing to verify the issuer by.
    #[error("there are no authorities to verify it by (give --oidc-ca with `sealane cluster add`): {0}")]
    Roots(String),
    /// The client can not be made.
    #[error("can not make a client: {0}")]
    Client(#[from] reqwest::Error),
    /// It did not answer, or not as it should.
    #[error("GET {url}: {why}")]
    Get {
        /// Of what.
        url: String,
        /// Why.
        why: String,
    },
    /// It says something else.
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
    /// Its keys can not be used.
    #[error(transparent)]
    Jwks(#[from] JwksError),
}

pub(super) async fn keys(source: &Source) -> Result<Vec<IssuerKey>, FetchError> {
    let client = client(source).await?;
    let url = format!("{}{WELL_KNOWN}", source.url.trim_end_matches('/'));
    let keys = oidc::jwks_uri(&get(&client, url).await?, &source.url)?;
    Ok(oidc::keys(&get(&client, keys).await?)?)
}

async fn client(source: &Source) -> Result<reqwest::Client, FetchError> {
    let given: Vec<_> = source.authorities.iter().map(|a| CertificateDer::from(a.clone())).collect();
    let roots = if given.is_empty() { of_this_machine().await } else { given };
    let tls = tls::web_client(&roots).map_err(|e: rustls::Error| FetchError::Roots(e.to_string()))?;
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .https_only(true)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .connect_timeout(CONNECT)
        .timeout(DOCUMENT);
    Ok(client.build()?)
}

/// What can not be read is not there: without any, the client says so.
async fn of_this_machine() -> Vec<CertificateDer<'static>> {
    let read = tokio::task::spawn_blocking(|| rustls_native_certs::load_native_certs().certs);
    let found = read.await.unwrap_or_default();
    // Machines hold some that no library takes.
    found.into_iter().filter(|root| tls::web_client(std::slice::from_ref(root)).is_ok()).collect()
}

async fn get(client: &reqwest::Client, url: String) -> Result<Vec<u8>, FetchError> {
    let failed = |why: String| FetchError::Get { url: url.clone(), why };
    let mut answer = client.get(&url).send().await.map_err(|e| failed(cause(e)))?;
    if !answer.status().is_success() {
        return Err(failed(format!("answered {}", answer.status())));
    }
    let mut document = Vec::new();
    while let Some(piece) = answer.chunk().await.map_err(|e| failed(cause(e)))? {
        if document.len() + piece.len() > MAX_DOCUMENT {
            return Err(failed(format!("the answer has more than {MAX_DOCUMENT} bytes")));
        }
        document.extend_from_slice(&piece);
    }
    Ok(document)
}

/// The innermost reason: the outer ones say only that it failed, and where.
fn cause(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut inner: &dyn std::error::Error = &error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}
