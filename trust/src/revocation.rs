//! Revocation by decision, not by list: the caller says which verified peers are no longer welcome, and their live
//! connections end at once.

use crate::svid::Svid;
use std::fmt;
use std::sync::Arc;
use tokio::sync::watch;

type Predicate = Arc<dyn Fn(&Svid) -> bool + Send + Sync>;

/// Which peers are revoked, as it changes. Clones share it.
#[derive(Clone)]
pub struct Revocations(watch::Sender<Predicate>);

impl Revocations {
    /// Nobody is revoked.
    #[must_use]
    pub fn none() -> Self {
        Revocations(watch::Sender::new(Arc::new(|_: &Svid| false)))
    }

    /// Sets the rule anew: whether a peer is revoked. Every live connection is asked again.
    pub fn set(&self, revoked: impl Fn(&Svid) -> bool + Send + Sync + 'static) {
        self.0.send_replace(Arc::new(revoked));
    }

    /// Whether a peer is revoked now.
    #[must_use]
    pub fn is_revoked(&self, peer: &Svid) -> bool {
        let rule = Arc::clone(&self.0.borrow());
        rule(peer)
    }

    /// Returns as soon as the peer is revoked.
    pub async fn revoked(&self, peer: &Svid) {
        let mut changes = self.0.subscribe();
        loop {
            let rule = Arc::clone(&changes.borrow_and_update());
            if rule(peer) {
                return;
            }
            if changes.changed().await.is_err() {
                // Not reached: we hold the sender. Without one nobody can be revoked any more.
                std::future::pending::<()>().await;
            }
        }
    }
}

impl Default for Revocations {
    fn default() -> Self {
        Revocations::none()
    }
}

impl fmt::Debug for Revocations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Revocations")
    }
}
