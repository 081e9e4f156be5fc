//! Issuing: a root, intermediates under it, and leaves that speak for one SPIFFE ID.
//!
//! Signing certificates carry `spiffe://<trust domain>`, keyCertSign and basicConstraints (X509-SVID sections 3
//! and 4); a root has path length 1 and an intermediate 0. A leaf has exactly one URI SAN and may be used on both
//! sides of TLS. Nothing is taken from a request but its key. A certificate never outlives the one that signs it.

use crate::clock;
use crate::key::{KeyError, PrivateKey, PublicKey};
use crate::pem;
use crate::svid::{self, Serial};
use rcgen::{BasicConstraints, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType};
use rustls_pki_types::CertificateDer;
use sealane_core::identity::{ClusterId, SpiffeId};
use sealane_core::name::{DnsName, TrustDomain};
use sealane_core::time::Millis;
use std::fmt;
use std::time::Duration;

/// How far a certificate's begin lies before its issue at most, for clocks that lag.
pub const BACKDATE: Duration = Duration::from_secs(60);
/// The part of a short certificate's life that its begin lies before its issue: were it the full [`BACKDATE`], half of
/// a life of a minute would be over at its issue, and its holder would renew without a pause.
const BACKDATE_PART: u32 = 8;

/// The most DNS names that a leaf may carry.
pub const MAX_DNS_SANS: usize = 16;

/// The last second that X.509 can write (9999-12-31T23:59:59Z), in milliseconds.
const LAST: u64 = 253_402_300_799_000;

/// A certificate that was not issued, or an authority that could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The issuer's own certificate is out of date, so nothing that it signs would be valid.
    #[error("the issuing certificate expired")]
    IssuerExpired,
    /// The validity is empty or beyond what X.509 can write.
    #[error("the validity is empty or ends after the year 9999")]
    BadValidity,
    /// The SPIFFE ID is of another trust domain than the issuer's.
    #[error("{id} is not of the issuer's trust domain {trust_domain}")]
    ForeignIdentity {
        /// The refused id.
        id: SpiffeId,
        /// The issuer's trust domain.
        trust_domain: TrustDomain,
    },
    /// More than [`MAX_DNS_SANS`] DNS names.
    #[error("a leaf may carry at most 16 DNS names")]
    TooManyNames,
    /// The issuer is not allowed to have other authorities below it.
    #[error("only a root may sign an intermediate")]
    NotARoot,
    /// The chain does not begin with a signing certificate of a trust domain, each signed by the next.
    #[error("the authority's certificate is refused: {0}")]
    BadAuthority(&'static str),
    /// The key is not the certificate's.
    #[error("the private key does not belong to the authority's certificate")]
    WrongKey,
    /// The PEM text is refused.
    #[error(transparent)]
    Pem(#[from] pem::PemError),
    /// The key is refused.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// No random bytes for a serial number.
    #[error(transparent)]
    Random(#[from] crate::RandomError),
    /// The certificate could not be encoded or signed.
    #[error("can not make the certificate")]
    Encode(#[source] rcgen::Error),
}

/// From when until when a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The first instant.
    pub not_before: Millis,
    /// The last instant.
    pub not_after: Millis,
}

impl Validity {
    /// Valid for a span from now on, and for an eighth of it before, [`BACKDATE`] at most.
    #[must_use]
    pub fn starting(now: Millis, span: Duration) -> Self {
        let not_before = Millis(now.0.saturating_sub(clock::millis(BACKDATE.min(span / BACKDATE_PART))));
        Validity { not_before, not_after: now.plus(clock::millis(span)) }
    }
}

/// What a leaf certificate is to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// Who it speaks for.
    pub spiffe_id: SpiffeId,
    /// The cluster's id, for a cluster's agent.
    pub cluster_id: Option<ClusterId>,
    /// When it is valid; cut at the issuer's own end.
    pub validity: Validity,
    /// DNS names, for clients that are not ours (a webhook's API server); ours verify the SPIFFE ID.
    pub dns_sans: Vec<DnsName>,
}

/// A certificate as issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The leaf, the intermediates and the root: what its holder presents.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's serial number.
    pub serial: Serial,
    /// When it ends, which may be before what was asked for.
    pub not_after: Millis,
}

impl Issued {
    /// The chain as PEM text.
    #[must_use]
    pub fn chain_pem(&self) -> String {
        pem::encode_certificates(&self.chain)
    }
}

/// A signing certificate with its key and the chain up to its root.
#[derive(Clone)]
pub struct Authority {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKey,
    trust_domain: TrustDomain,
    not_after: Millis,
    may_delegate: bool,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("trust_domain", &self.trust_domain)
            .field("not_after", &self.not_after)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

impl Authority {
    /// Makes the root of a trust domain, with a new key.
    ///
    /// # Errors
    /// When the validity makes no sense or the operating system gives no random bytes.
    pub fn root(
        trust_domain: &TrustDomain,
        common_name: &str,
        validity: Validity,
    ) -> Result<Self, IssueError> {
        let key = PrivateKey::generate()?;
        let params = signing_params(trust_domain, common_name, validity, 1)?;
        let certificate = params.self_signed(&key).map_err(IssueError::Encode)?;
        Authority::new(vec![certificate.into()], key)
    }

    /// Takes a chain (the authority's own certificate first, its root last) with its key.
    ///
    /// # Errors
    /// When the first certificate is no signing certificate of a trust domain or the key is not its own.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKey) -> Result<Self, IssueError> {
        let refuse = IssueError::BadAuthority;
        let own = chain.first().ok_or(refuse("the chain is empty"))?;
        let parsed = svid::x509(own).map_err(|_| refuse("it is not a well-formed certificate"))?;
        let constraints =
            parsed.basic_constraints().map_err(|_| refuse("its basicConstraints are malformed"))?;
        let constraints =
            constraints.filter(|c| c.value.ca).ok_or(refuse("it is not a signing certificate"))?;
        let may_delegate = constraints.value.path_len_constraint.is_none_or(|len| len > 0);
        let trust_domain = svid::signing_domain(&parsed)
            .ok_or(refuse("it does not carry spiffe://<trust domain> as its only URI"))?;
        if PublicKey::from_der(parsed.public_key().raw).as_ref() != Some(key.public()) {
            return Err(IssueError::WrongKey);
        }
        for (lower, upper) in chain.iter().zip(chain.iter().skip(1)) {
            let names = svid::x509(lower)
                .and_then(|l| svid::x509(upper).map(|u| l.issuer().as_raw() == u.subject().as_raw()));
            if !names.unwrap_or(false) {
                return Err(refuse("its chain is not in order, each certificate issued by the next"));
            }
        }
        let not_after = svid::millis(parsed.validity().not_after);
        drop(parsed);
        Ok(Authority { chain, key, trust_domain, not_after, may_delegate })
    }

    /// Loads an authority from its PEM texts: the chain (own certificate first, root last) and the PKCS #8 key.
    ///
    /// # Errors
    /// As [`Authority::new`], and when either text is damaged.
    pub fn load(chain_pem: &[u8], key_pem: &[u8]) -> Result<Self, IssueError> {
        Authority::new(pem::certificates(chain_pem)?, PrivateKey::from_pem(key_pem)?)
    }

    /// Makes an intermediate for a key of ours: an authority that signs leaves only.
    ///
    /// # Errors
    /// When this authority is itself an intermediate or its time is over.
    pub fn intermediate(&self, key: PrivateKey, name: &str, validity: Validity) -> Result<Self, IssueError> {
        Authority::new(self.certify_intermediate(key.public(), name, validity)?, key)
    }

    /// Signs an intermediate for someone else's key; the result is its chain.
    ///
    /// # Errors
    /// When this authority is itself an intermediate or its time is over.
    pub fn certify_intermediate(
        &self,
        key: &PublicKey,
        name: &str,
        validity: Validity,
    ) -> Result<Vec<CertificateDer<'static>>, IssueError> {
        if !self.may_delegate {
            return Err(IssueError::NotARoot);
        }
        let params = signing_params(&self.trust_domain, name, self.within(validity)?, 0)?;
        self.sign(params, key)
    }

    /// Issues a leaf for a key.
    ///
    /// # Errors
    /// When the id is of another trust domain, the validity makes no sense or this authority's time is over.
    pub fn issue(&self, key: &PublicKey, leaf: &Leaf) -> Result<Issued, IssueError> {
        if leaf.spiffe_id.trust_domain() != &self.trust_domain {
            let (id, trust_domain) = (leaf.spiffe_id.clone(), self.trust_domain.clone());
            return Err(IssueError::ForeignIdentity { id, trust_domain });
        }
        if leaf.dns_sans.len() > MAX_DNS_SANS {
            return Err(IssueError::TooManyNames);
        }
        let validity = self.within(leaf.validity)?;
        let mut params = base_params(validity)?;
        if let Some(id) = leaf.cluster_id {
            params.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 5]), id.to_string());
        }
        params.subject_alt_names.push(uri(&leaf.spiffe_id.to_string())?);
        for name in &leaf.dns_sans {
            let name = name.as_str().try_into().map_err(IssueError::Encode)?;
            params.subject_alt_names.push(SanType::DnsName(name));
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let serial = params.serial_number.as_ref().map(|s| Serial::of(s.as_ref()));
        let serial = serial.ok_or(IssueError::BadAuthority("no serial number"))?;
        Ok(Issued { chain: self.sign(params, key)?, serial, not_after: whole_seconds(validity.not_after) })
    }

    /// The chain: this authority's own certificate first, its root last.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The chain as PEM text, for [`Authority::load`].
    #[must_use]
    pub fn chain_pem(&self) -> String {
        pem::encode_certificates(&self.chain)
    }

    /// The root at the end of the chain.
    #[must_use]
    pub fn root_certificate(&self) -> &CertificateDer<'static> {
        self.chain.last().expect("Authority::new refuses an empty chain")
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &PrivateKey {
        &self.key
    }

    /// The trust domain that it signs for.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// When its own certificate ends.
    #[must_use]
    pub fn not_after(&self) -> Millis {
        self.not_after
    }

    fn within(&self, validity: Validity) -> Result<Validity, IssueError> {
        if validity.not_before >= self.not_after {
            return Err(IssueError::IssuerExpired);
        }
        Ok(Validity { not_after: validity.not_after.min(self.not_after), ..validity })
    }

    fn sign(
        &self,
        mut params: rcgen::CertificateParams,
        key: &PublicKey,
    ) -> Result<Vec<CertificateDer<'static>>, IssueError> {
        params.use_authority_key_identifier_extension = true;
        let issuer =
            rcgen::Issuer::from_ca_cert_der(&self.chain[0], &self.key).map_err(IssueError::Encode)?;
        let certificate = params.signed_by(key, &issuer).map_err(IssueError::Encode)?;
        Ok(std::iter::once(certificate.into()).chain(self.chain.iter().cloned()).collect())
    }
}

fn whole_seconds(time: Millis) -> Millis {
    Millis(time.0 / 1000 * 1000)
}

fn uri(text: &str) -> Result<SanType, IssueError> {
    Ok(SanType::URI(text.try_into().map_err(IssueError::Encode)?))
}

/// What every certificate has: validity, a random serial number and the organisation.
fn base_params(validity: Validity) -> Result<rcgen::CertificateParams, IssueError> {
    if validity.not_before >= validity.not_after || validity.not_after.0 > LAST {
        return Err(IssueError::BadValidity);
    }
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let mut params = rcgen::CertificateParams::default();
    params.not_before = epoch + Duration::from_secs(validity.not_before.0 / 1000);
    params.not_after = epoch + Duration::from_secs(validity.not_after.0 / 1000);
    let mut serial = crate::random::<16>()?;
    // Positive and of full length, so that its DER is these 16 bytes.
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(serial.to_vec().into());
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Sealane");
    Ok(params)
}

fn signing_params(
    trust_domain: &TrustDomain,
    name: &str,
    validity: Validity,
    path_length: u8,
) -> Result<rcgen::CertificateParams, IssueError> {
    let mut params = base_params(validity)?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.subject_alt_names.push(uri(&format!("spiffe://{trust_domain}"))?);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

#[cfg(test)]
mod tests;
