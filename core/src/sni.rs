//! Names on the wire: what a TLS client asks for in its SNI.
//!
//! `p<port>.<service>.<namespace>.svc.clusterset.local` is any endpoint of a service, at its Service port; one more
//! leading label, an endpoint id, asks for that endpoint and no other. `probe.<cluster>.sealane.internal` is a
//! cluster's probe endpoint. Parsing is strict and ignores case; whatever has another form is refused.

use crate::name::{ClusterName, EndpointId, NameError, Namespace, ServiceKey, ServiceName};
use std::fmt;
use std::str::FromStr;

/// What follows the service in a target's name.
pub const CLUSTERSET_SUFFIX: &str = ".svc.clusterset.local";
/// What follows the cluster in a probe's name.
pub const PROBE_SUFFIX: &str = ".sealane.internal";

/// The longest name that DNS, and so SNI, can carry.
const MAX_LENGTH: usize = 253;

/// A service, or one endpoint of it, as a client asks for it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// The one endpoint that is wanted; `None` for any.
    pub endpoint: Option<EndpointId>,
    /// The Service port (not the endpoint's target port), never 0.
    pub port: u16,
    /// The service.
    pub service: ServiceKey,
}

/// What a server name asks for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServerName {
    /// A service.
    Service(Target),
    /// The probe endpoint of a cluster.
    Probe(ClusterName),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(endpoint) = &self.endpoint {
            write!(f, "{endpoint}.")?;
        }
        let ServiceKey { namespace, name } = &self.service;
        write!(f, "p{}.{name}.{namespace}{CLUSTERSET_SUFFIX}", self.port)
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServerName::Service(target) => target.fmt(f),
            ServerName::Probe(cluster) => write!(f, "probe.{cluster}{PROBE_SUFFIX}"),
        }
    }
}

impl FromStr for ServerName {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, NameError> {
        ServerName::parse(s)
    }
}

impl FromStr for Target {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, NameError> {
        match ServerName::parse(s)? {
            ServerName::Service(target) => Ok(target),
            ServerName::Probe(_) => Err(refuse(s, "must name a service and not a probe")),
        }
    }
}

impl ServerName {
    /// Parses a server name, whatever its case.
    ///
    /// # Errors
    /// When it has neither of the two forms.
    pub fn parse(s: &str) -> Result<Self, NameError> {
        if s.len() > MAX_LENGTH {
            return Err(refuse(s, "must be at most 253 characters"));
        }
        let name = s.to_ascii_lowercase();
        if let Some(rest) = name.strip_suffix(CLUSTERSET_SUFFIX) {
            return target(rest).map(ServerName::Service).ok_or_else(|| {
                refuse(s, "must be [e-<endpoint>.]p<port>.<service>.<namespace>.svc.clusterset.local")
            });
        }
        let cluster = name.strip_prefix("probe.").and_then(|rest| rest.strip_suffix(PROBE_SUFFIX));
        match cluster.map(ClusterName::parse) {
            Some(Ok(cluster)) => Ok(ServerName::Probe(cluster)),
            _ => Err(refuse(s, "must be under svc.clusterset.local or be probe.<cluster>.sealane.internal")),
        }
    }
}

fn target(rest: &str) -> Option<Target> {
    let labels: Vec<&str> = rest.split('.').collect();
    let (endpoint, [port, service, namespace]) = match labels.as_slice() {
        [endpoint, tail @ ..] if tail.len() == 3 => {
            (Some(EndpointId::parse(endpoint).ok()?), <[&str; 3]>::try_from(tail).ok()?)
        }
        all => (None, <[&str; 3]>::try_from(all).ok()?),
    };
    Some(Target {
        endpoint,
        port: port_label(port)?,
        service: ServiceKey {
            namespace: Namespace::parse(namespace).ok()?,
            name: ServiceName::parse(service).ok()?,
        },
    })
}

/// `p` and a port in its one decimal form: no sign, no leading zero, never 0.
fn port_label(label: &str) -> Option<u16> {
    let digits = label.strip_prefix('p')?;
    let port: u16 = digits.parse().ok()?;
    (port != 0 && port.to_string() == digits).then_some(port)
}

fn refuse(s: &str, rule: &'static str) -> NameError {
    NameError::new("server name", s, rule)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn service(s: &str) -> ServiceKey {
        ServiceKey::parse(s).unwrap()
    }

    #[test]
    fn the_three_forms_are_parsed_whatever_their_case() {
        let any = Target { endpoint: None, port: 443, service: service("shop/cart") };
        assert_eq!(
            ServerName::parse("p443.cart.shop.svc.clusterset.local"),
            Ok(ServerName::Service(any.clone()))
        );
        assert_eq!(
            ServerName::parse("P443.Cart.SHOP.svc.ClusterSet.local"),
            Ok(ServerName::Service(any.clone()))
        );
        let endpoint = Some(EndpointId::parse("e-abcdefghij234").unwrap());
        let one = Target { endpoint, ..any };
        assert_eq!("e-ABCDEFGHIJ234.p443.cart.shop.svc.clusterset.local".parse(), Ok(one));
        let probe = ServerName::Probe(ClusterName::parse("west").unwrap());
        assert_eq!(ServerName::parse("probe.west.sealane.internal"), Ok(probe));
    }

    #[test]
    fn every_other_form_is_refused() {
        for bad in [
            "",
            "p443.cart.shop.svc.clusterset.local.",
            "cart.shop.svc.clusterset.local",
            "p0.cart.shop.svc.clusterset.local",
            "p080.cart.shop.svc.clusterset.local",
            "p+80.cart.shop.svc.clusterset.local",
            "p65536.cart.shop.svc.clusterset.local",
            "p80.cart.svc.clusterset.local",
            "p80..shop.svc.clusterset.local",
            "west.p80.cart.shop.svc.clusterset.local",
            "e-abcdefghij234.e-abcdefghij234.p80.cart.shop.svc.clusterset.local",
            "p80.cart.shop.svc.cluster.local",
            "probe.sealane.internal",
            "probe.a.b.sealane.internal",
            "west.sealane.internal",
            &format!("p80.cart.{}.svc.clusterset.local", "a".repeat(300)),
        ] {
            assert!(ServerName::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(port in 1u16.., name in "[a-z0-9]{1,20}", namespace in "[a-z0-9]{1,20}", one: bool) {
            let endpoint = one.then(|| EndpointId::parse("e-abcdefghij234").unwrap());
            let target = Target { endpoint, port, service: service(&format!("{namespace}/{name}")) };
            prop_assert_eq!(target.to_string().parse::<Target>().unwrap(), target);
        }

        #[test]
        fn no_text_is_parsed_to_what_is_written_otherwise(text in "(e-[a-z2-7]{13}\\.)?[p.]{1,2}[0-9]{1,3}\\.[a-z.-]{1,8}\\.(svc\\.clusterset\\.local|sealane\\.internal)") {
            if let Ok(name) = ServerName::parse(&text) {
                prop_assert_eq!(name.to_string(), text);
            }
        }
    }
}
