//! Keeping the certificate that joining brought, for as long as the agent runs.

use super::{EnrollError, Projected, Ticket, admit, ask, load};
use crate::backoff::Backoff;
use crate::lease::Leadership;
use crate::state::{Membership, StateDir};
use crate::status::{Status, rfc3339};
use crate::store::Store;
use crate::vault::{Credentials, Vault};
use sealane_trust::clock;
use sealane_trust::key::PrivateKey;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The least time between two renewals, whatever the certificates say.
const AFTER: Duration = Duration::from_millis(500);
/// How often a replica that does not lead looks for what the leader kept, when it is time.
const FOLLOW: Duration = Duration::from_secs(5);
/// How often the certificate is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What renewing needs.
pub struct Renewal {
    /// Where the certificate is kept.
    pub vault: Vault,
    /// What is kept there.
    pub kept: Credentials,
    /// The way to the store, which uses it.
    pub store: Arc<Store>,
    /// Of several replicas one renews.
    pub leadership: Leadership,
    /// Where it is told that the cluster was removed.
    pub status: Arc<Status>,
    /// Where that is kept.
    pub state: StateDir,
    /// By what the cluster may join again, where renewing can not help.
    pub projected: Option<Projected>,
}

/// What became of one try.
enum Turn {
    /// The certificate is a new one.
    Renewed,
    /// Another replica renews.
    Followed,
    /// The cluster is another member now: what runs is of the former one.
    Another(Membership),
}

/// Renews the certificate at half of its life, and for as long as the store allows after its end; with a new key
/// each time. Of several replicas the one that leads does; the others take what it kept. Where the store takes the
/// certificate no more, or has removed the cluster, it joins again by a projected token, if there is one.
///
/// Returns when stopped. It stops the process itself when the cluster became another member.
pub async fn keep_renewed(mut renewal: Renewal, stop: CancellationToken) {
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
    // Of all tries to join again: a token is used by one key.
    let mut joining = None;
    loop {
        let left = Duration::from_millis(renewal.store.identity().current().half_life().since(clock::now()));
        let wait = left.min(LOOK);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        let removed = renewal.projected.is_some() && renewal.status.removal().is_some();
        if left > wait && !removed {
            continue;
        }
        let pause = match renewal.turn(removed, &mut joining).await {
            Ok(Turn::Renewed) => {
                backoff.reset();
                AFTER
            }
            Ok(Turn::Followed) => FOLLOW,
            Ok(Turn::Another(membership)) => {
                let id = membership.cluster_id;
                tracing::warn!(cluster = %membership.cluster, %id, "this cluster is another member now: starting anew");
                stop.cancel();
                return;
            }
            Err(error) => {
                let expires = rfc3339(renewal.store.identity().current().not_after);
                tracing::warn!(error = %error, expires, "can not renew the agent's certificate");
                backoff.pause()
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

impl Renewal {
    async fn turn(&mut self, removed: bool, joining: &mut Option<PrivateKey>) -> Result<Turn, EnrollError> {
        let found = match &self.vault {
            // Nobody else writes there.
            Vault::Directory(_) => None,
            Vault::Secrets(_) => {
                self.vault.credentials().await?.filter(|found| found.identity != self.kept.identity)
            }
        };
        if let Some(found) = found {
            return self.take(found);
        }
        if self.leadership.term().is_none() {
            return Ok(Turn::Followed);
        }
        let brought = match removed {
            true => self.join_again(joining).await?,
            false => match ask(&self.store).await {
                Err(error) if self.is_over(&error) => {
                    tracing::warn!(error = %error, "can not renew the agent's certificate: joining again");
                    self.join_again(joining).await?
                }
                asked => asked?,
            },
        };
        let kept = self.vault.keep(Some(&self.kept), brought).await?;
        *joining = None;
        self.take(kept)
    }

    /// Whether renewing can not help any more, and joining again can.
    fn is_over(&self, error: &EnrollError) -> bool {
        let expired = self.store.identity().current().not_after <= clock::now();
        self.projected.is_some()
            && (expired || (matches!(error, EnrollError::Call(_)) && !error.is_transient()))
    }

    async fn join_again(&self, joining: &mut Option<PrivateKey>) -> Result<Credentials, EnrollError> {
        let projected = self.projected.clone().ok_or(EnrollError::NoToken)?;
        let key = match joining.take() {
            Some(key) => key,
            None => PrivateKey::generate()?,
        };
        let key = joining.insert(key);
        let brought = admit(&Ticket::Projected(projected), key).await?;
        tracing::info!(cluster = %brought.membership.cluster, id = %brought.membership.cluster_id, "joined again");
        Ok(brought)
    }

    fn take(&mut self, next: Credentials) -> Result<Turn, EnrollError> {
        let (renewed, roots) = load(&next)?;
        let (was, is) = (&self.kept.membership, &next.membership);
        if (was.cluster_id, &was.trust_domain) != (is.cluster_id, &is.trust_domain) {
            // What was said of the former member is not true of this one.
            if let Err(error) = self.state.set_removed(None) {
                tracing::warn!(error = %error, "can not forget that the former member was removed");
            }
            return Ok(Turn::Another(next.membership));
        }
        self.store.replace(next.membership.clone(), roots);
        self.store.identity().replace(renewed.chain(), &PrivateKey::from_pem(&next.identity)?)?;
        self.kept = next;
        let not_after = rfc3339(renewed.current().not_after);
        tracing::info!(not_after, "renewed the agent's certificate");
        Ok(Turn::Renewed)
    }
}
