//! The state that every history begins with: a founded federation whose members have joined.

use sealane_core::command::{Action, AdminAction, Command};
use sealane_core::endpoint::Endpoint;
use sealane_core::identity::{FederationId, Principal};
use sealane_core::name::{ClusterName, NameError, ServiceAccount, TrustDomain};
use sealane_core::state::{Grant, Limits, State, TokenScope};
use sealane_core::time::Millis;

/// The federation.
pub(super) const FEDERATION: FederationId = FederationId([7; 16]);
/// The members.
pub(super) const CLUSTERS: [&str; 3] = ["east", "west", "edge"];
/// Far beyond every history.
pub(super) const FAR: Millis = Millis(1 << 40);

fn domain(cluster: &str) -> Result<TrustDomain, NameError> {
    TrustDomain::parse(&format!("{cluster}.fed"))
}

/// The administrator.
pub(super) fn admin() -> Result<Principal, NameError> {
    Ok(Principal::Admin(ServiceAccount::parse("ada")?))
}

fn scope(cluster: &str) -> Result<TokenScope, NameError> {
    let (exports, imports) = (Grant::all(), Grant::all());
    Ok(TokenScope::Cluster {
        name: ClusterName::parse(cluster)?,
        trust_domain: domain(cluster)?,
        exports,
        imports,
    })
}

/// The scope of a token that the administrator makes; its cluster never joins.
pub(super) fn token_scope(number: u64) -> Result<TokenScope, NameError> {
    scope(&format!("guest-{number}"))
}

/// An endpoint of a cluster's own.
pub(super) fn endpoint(cluster: &str, number: u8, port: u16) -> Result<Endpoint, NameError> {
    let letter = char::from(b'a' + number % 26);
    Ok(Endpoint {
        id: sealane_core::name::EndpointId::parse(&format!("e-aaaaaaaaaaaa{letter}"))?,
        address: [10, 0, 0, number].into(),
        ports: [(sealane_core::name::PortName::parse("http")?, port)].into(),
        ready: true,
        locality: sealane_core::endpoint::Locality::default(),
        spiffe_id: Some(sealane_core::identity::SpiffeId::parse(&format!(
            "spiffe://{cluster}.fed/ns/shop/sa/cart"
        ))?),
        inbound_port: Some(15008),
        hostname: None,
        network: None,
    })
}

/// The state, which has applied as many commands as its revision says.
pub(super) fn state() -> anyhow::Result<State> {
    let mut state = State::empty();
    let mut index = 0;
    let mut run = |principal: Option<Principal>, action: Action| -> anyhow::Result<()> {
        index += 1;
        let command = Command { min_version: 1, at: Millis(index), principal, action };
        state.apply(index, &command)?;
        Ok(())
    };
    let trust_domain = TrustDomain::parse("fed")?;
    run(None, Action::Found { federation: FEDERATION, trust_domain, limits: Limits::default() })?;
    for (n, cluster) in (1u8..).zip(CLUSTERS) {
        let create = AdminAction::CreateToken { hash: [n; 32], scope: scope(cluster)?, expires: FAR };
        run(Some(admin()?), Action::Admin { key: [n; 16], action: create })?;
        run(None, Action::Join { token: [n; 32], key: [n; 32], not_after: FAR })?;
    }
    Ok(state)
}
