//! What a cluster joins by: a single-use join token, or a token of its own issuer, as the kubelet projects it into a pod.

use super::EnrollError;
use sealane_core::identity::FederationId;
use sealane_core::name::{ClusterName, ClusterUid};
use sealane_proto::federation::v1 as wire;
use sealane_trust::bundle::RootHash;
use sealane_trust::csr::Csr;
use sealane_trust::file::{self, FileError};
use sealane_trust::join::{JoinToken, TokenError, TokenKind};
use sealane_trust::oidc;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// What a cluster joins by.
#[derive(Debug, Clone)]
pub enum Ticket {
    /// A single-use token that was handed over.
    Token(JoinToken),
    /// Tokens of the cluster's own issuer.
    Projected(Projected),
}

/// By tokens of the cluster's own issuer: what `sealane cluster add` printed, and where the tokens come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Projected {
    /// The file that always holds a token that has not run out.
    pub file: PathBuf,
    /// The name by which the cluster was added.
    pub cluster: ClusterName,
    /// The federation.
    pub federation: FederationId,
    /// The root that its servers must prove to descend from.
    pub root: RootHash,
    /// Where they listen, as HOST:PORT.
    pub servers: Vec<String>,
    /// Which Kubernetes cluster this is.
    pub uid: Option<ClusterUid>,
}

impl Ticket {
    pub(super) fn federation(&self) -> FederationId {
        match self {
            Ticket::Token(token) => token.federation,
            Ticket::Projected(projected) => projected.federation,
        }
    }

    pub(super) fn root(&self) -> RootHash {
        match self {
            Ticket::Token(token) => token.root_hash,
            Ticket::Projected(projected) => projected.root,
        }
    }

    pub(super) fn servers(&self) -> &[String] {
        match self {
            Ticket::Token(token) => &token.endpoints,
            Ticket::Projected(projected) => &projected.servers,
        }
    }

    /// The request of a join. What is projected is read anew each time: the kubelet writes the next one before it runs out.
    pub(super) fn request(&self, csr: &Csr) -> Result<wire::JoinRequest, EnrollError> {
        let csr = csr.der().to_vec();
        Ok(match self {
            Ticket::Token(token) => {
                wire::JoinRequest { secret: token.secret().to_vec(), csr, projected: None }
            }
            Ticket::Projected(projected) => {
                let projected = Some(projected.shown()?);
                wire::JoinRequest { secret: Vec::new(), csr, projected }
            }
        })
    }

    /// Whether trying again may help. A single-use token that was refused stays refused; a projected one is followed by
    /// others, and a cluster may be added later.
    #[must_use]
    pub fn may_pass(&self, error: &EnrollError) -> bool {
        match self {
            Ticket::Token(_) => error.is_transient(),
            Ticket::Projected(_) => {
                matches!(error, EnrollError::Call(_) | EnrollError::File(_)) || error.is_transient()
            }
        }
    }
}

impl Projected {
    fn shown(&self) -> Result<wire::ProjectedToken, EnrollError> {
        let bytes = file::read_projected(&self.file, oidc::MAX_TOKEN as u64)?;
        Ok(wire::ProjectedToken {
            cluster: self.cluster.to_string(),
            token: String::from_utf8_lossy(&bytes).trim().to_owned(),
            uid: self.uid.as_ref().map(ToString::to_string),
        })
    }
}

/// The token of a file, or of standard input (`-`).
///
/// # Errors
/// When it can not be read, is exposed to others, or is no cluster's token.
pub fn read_token(path: &Path) -> Result<JoinToken, EnrollError> {
    let bytes: Zeroizing<Vec<u8>> = if path == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut std::io::Read::take(std::io::stdin(), 16 * 1024), &mut bytes)
            .map_err(|source| FileError::Io { what: "read", path: path.to_owned(), source })?;
        bytes.into()
    } else {
        file::read_private(path, 16 * 1024)?
    };
    let text = String::from_utf8_lossy(&bytes);
    let token = match JoinToken::parse(&text) {
        // Easily mixed up: both are files that join a cluster.
        Err(TokenError::NotAToken) if oidc::Token::parse(&text).is_ok() => {
            return Err(EnrollError::Projected);
        }
        parsed => parsed?,
    };
    if token.kind != TokenKind::Cluster {
        return Err(EnrollError::NotForACluster);
    }
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_projected_token_is_read_anew_for_each_request() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        let projected = Projected {
            file: file.clone(),
            cluster: "east".parse().unwrap(),
            federation: FederationId([7; 16]),
            root: RootHash([8; 32]),
            servers: vec!["127.0.0.1:7443".to_owned()],
            uid: Some("u-1".parse().unwrap()),
        };
        let ticket = Ticket::Projected(projected.clone());
        let absent = projected.shown().unwrap_err();
        assert!(matches!(absent, EnrollError::File(_)) && ticket.may_pass(&absent));
        for text in ["one", "two\n"] {
            std::fs::write(&file, text).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
            let expected = wire::ProjectedToken {
                cluster: "east".to_owned(),
                token: text.trim().to_owned(),
                uid: Some("u-1".to_owned()),
            };
            assert_eq!(projected.shown().unwrap(), expected);
        }
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(projected.shown().is_err());
    }

    #[test]
    fn what_is_refused_today_may_be_admitted_tomorrow_only_by_projected_tokens() {
        let refused = EnrollError::from(Box::new(tonic::Status::not_found("cluster east was not added")));
        let federation = FederationId([7; 16]);
        let servers = vec!["127.0.0.1:7443".to_owned()];
        let token =
            JoinToken::new(federation, TokenKind::Cluster, RootHash([8; 32]), servers.clone()).unwrap();
        assert!(!Ticket::Token(token).may_pass(&refused));
        let (file, cluster) = (PathBuf::from("t"), "east".parse().unwrap());
        let projected = Projected { file, cluster, federation, root: RootHash([8; 32]), servers, uid: None };
        let ticket = Ticket::Projected(projected);
        assert!(ticket.may_pass(&refused));
        assert!(!ticket.may_pass(&EnrollError::Reply("it comes from another federation".to_owned())));
    }
}
