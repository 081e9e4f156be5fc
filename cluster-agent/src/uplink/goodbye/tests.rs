use super::*;
use sealane_core::identity::{ClusterId, FederationId, ServerId, SpiffeId};
use sealane_proto::Wire;
use sealane_trust::clock;
use sealane_trust::issue::{Authority, Leaf, Validity};
use sealane_trust::key::PrivateKey;
use sealane_trust::tls::Identity;
use std::time::Duration;

const FEDERATION: FederationId = FederationId([7; 16]);

fn membership() -> Membership {
    Membership {
        federation: FEDERATION,
        federation_domain: "fed".parse().unwrap(),
        cluster_id: ClusterId(3),
        cluster: "east".parse().unwrap(),
        trust_domain: "east.fed".parse().unwrap(),
        servers: Vec::new(),
    }
}

fn revision(index: u64) -> Revision {
    Revision { generation: 1, index }
}

fn departure() -> wire::Departure {
    wire::Departure {
        federation: FEDERATION.0.to_vec(),
        cluster_id: 3,
        cluster: "east".to_owned(),
        revision: Some(revision(50).to_wire()),
    }
}

struct Federation(Authority);

impl Federation {
    fn new() -> Self {
        let validity = Validity::starting(clock::now(), Duration::from_secs(3600));
        Federation(Authority::root(&"fed".parse().unwrap(), "root", validity).unwrap())
    }

    fn roots(&self) -> Bundle {
        Bundle::new("fed".parse().unwrap(), vec![self.0.root_certificate().clone()]).unwrap()
    }

    fn identity(&self, spiffe_id: SpiffeId, cluster_id: Option<ClusterId>) -> Identity {
        let key = PrivateKey::generate().unwrap();
        let validity = Validity::starting(clock::now(), Duration::from_secs(600));
        let leaf = Leaf { spiffe_id, cluster_id, validity, dns_sans: Vec::new() };
        Identity::new(self.0.issue(key.public(), &leaf).unwrap().chain, &key).unwrap()
    }

    fn server(&self) -> Identity {
        self.identity(SpiffeId::server(&"fed".parse().unwrap(), ServerId(1)), None)
    }

    fn says(&self, identity: &Identity, change: impl FnOnce(&mut wire::Departure)) -> wire::Goodbye {
        let mut departure = departure();
        change(&mut departure);
        let signed = Signed::new(identity, GOODBYE, departure.encode_to_vec()).unwrap();
        let chain = signed.chain.iter().map(|c| c.to_vec()).collect();
        wire::Goodbye { departure: signed.statement, signature: signed.signature, chain }
    }

    fn judge(&self, goodbye: &wire::Goodbye) -> Result<Revision, GoodbyeError> {
        verify(&goodbye.encode_to_vec(), &membership(), &self.roots(), revision(40), clock::now())
    }
}

#[test]
fn a_goodbye_of_a_server_to_this_member_holds() {
    let federation = Federation::new();
    let goodbye = federation.says(&federation.server(), |_| {});
    assert_eq!(federation.judge(&goodbye), Ok(revision(50)));
}

#[test]
fn a_goodbye_that_is_forged_unsigned_old_or_for_another_does_nothing() {
    let (federation, stranger) = (Federation::new(), Federation::new());
    let server = federation.server();
    let refused = |goodbye: &wire::Goodbye| federation.judge(goodbye).unwrap_err().to_string();
    let other = |id: u64, federation: &str| {
        format!("it is for cluster east with the id {id} of federation {federation}")
    };

    let forged = stranger.says(&stranger.server(), |_| {});
    assert_eq!(refused(&forged), "the peer's certificate is not signed by a root of its trust domain");
    let unsigned = wire::Goodbye { signature: Vec::new(), ..federation.says(&server, |_| {}) };
    assert_eq!(refused(&unsigned), "the signature does not belong to the statement");
    let changed = wire::Goodbye {
        departure: departure().encode_to_vec(),
        ..federation.says(&server, |d| d.cluster_id = 2)
    };
    assert_eq!(refused(&changed), "the signature does not belong to the statement");
    let agent = SpiffeId::agent(&"fed".parse().unwrap(), &"west".parse().unwrap());
    let by_an_agent = federation.says(&federation.identity(agent, Some(ClusterId(4))), |_| {});
    assert_eq!(
        refused(&by_an_agent),
        "spiffe://fed/agent/west signed it, which is no server of the federation"
    );
    let replayed = federation.says(&server, |d| d.cluster_id = 2);
    assert_eq!(refused(&replayed), other(2, &FEDERATION.to_string()));
    let elsewhere = federation.says(&server, |d| d.federation = vec![8; 16]);
    assert_eq!(refused(&elsewhere), other(3, &FederationId([8; 16]).to_string()));
    let old = federation.says(&server, |d| d.revision = Some(revision(39).to_wire()));
    assert_eq!(refused(&old), "it is of revision 1.39, and the view that is held of 1.40");
    assert!(matches!(federation.judge(&wire::Goodbye::default()), Err(GoodbyeError::Statement(_))));
    assert!(matches!(
        verify(b"was removed", &membership(), &federation.roots(), revision(40), clock::now()),
        Err(GoodbyeError::Malformed(_))
    ));
}
