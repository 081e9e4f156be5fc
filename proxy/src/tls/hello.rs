//! The ClientHello, read without decrypting anything: what it asks for, and nothing a stranger can make large.
//!
//! Law: at most 16 KiB in at most 64 records are looked at; whatever is not exactly one well-formed ClientHello so far
//! is refused. The bytes are kept as they came, because they are sent on (gateway) or replayed to the TLS library.

use std::fmt;

/// The most bytes, record headers included, that a ClientHello may take.
pub(crate) const MAX_HELLO: usize = 16 * 1024;
/// The most TLS records that it may be cut into.
const MAX_RECORDS: usize = 64;
const RECORD_HEADER: usize = 5;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const EXTENSION_SERVER_NAME: u16 = 0;
const EXTENSION_ALPN: u16 = 16;
const EXTENSION_VERSIONS: u16 = 43;
const TLS13: u16 = 0x0304;

/// What a ClientHello asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ClientHello {
    /// The server name, as it was written.
    pub(crate) server_name: Option<String>,
    /// The application protocols offered, in order.
    pub(crate) alpn: Vec<Vec<u8>>,
    /// Whether TLS 1.3 is among the versions offered.
    pub(crate) tls13: bool,
}

impl ClientHello {
    /// Whether a protocol is offered.
    pub(crate) fn offers(&self, protocol: &[u8]) -> bool {
        self.alpn.iter().any(|p| p == protocol)
    }
}

/// Bytes that are no ClientHello of ours. The peer is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HelloError {
    /// The first bytes are not a TLS handshake record.
    #[error("not a TLS handshake")]
    NotTls,
    /// The first handshake message is something else.
    #[error("the first message is not a ClientHello")]
    NotClientHello,
    /// It is larger than [`MAX_HELLO`] or in more than 64 records.
    #[error("the ClientHello is larger than 16 KiB or in more than 64 records")]
    TooLarge,
    /// Its fields contradict their lengths.
    #[error("the ClientHello is malformed")]
    Malformed,
}

/// Reads a ClientHello from the first bytes of a connection; `None` while it is not whole.
///
/// # Errors
/// When the bytes so far can not become a ClientHello within the bounds.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<ClientHello>, HelloError> {
    let mut rest = bytes;
    let mut message: Vec<u8> = Vec::new();
    for records in 0.. {
        if let Some(body) = whole_message(&message)? {
            return parse_body(body).map(Some).ok_or(HelloError::Malformed);
        }
        let Some((length, after)) = record_header(rest)? else { return unfinished(bytes) };
        if records >= MAX_RECORDS || bytes.len() - rest.len() + RECORD_HEADER + length > MAX_HELLO {
            return Err(HelloError::TooLarge);
        }
        let Some((fragment, after)) = after.split_at_checked(length) else {
            announced(&message, after)?;
            return unfinished(bytes);
        };
        // The whole message in its first record is the rule: no copy then.
        if message.is_empty()
            && let Some(body) = whole_message(fragment)?
        {
            return parse_body(body).map(Some).ok_or(HelloError::Malformed);
        }
        message.extend_from_slice(fragment);
        rest = after;
    }
    Err(HelloError::TooLarge)
}

fn unfinished(bytes: &[u8]) -> Result<Option<ClientHello>, HelloError> {
    if bytes.len() >= MAX_HELLO { Err(HelloError::TooLarge) } else { Ok(None) }
}

/// A bad message header is refused at once, not only when its record is whole.
fn announced(message: &[u8], partial: &[u8]) -> Result<(), HelloError> {
    let start: Vec<u8> = message.iter().chain(partial).take(4).copied().collect();
    whole_message(&start).map(|_| ())
}

/// The length of the record's content, and what follows its header.
fn record_header(bytes: &[u8]) -> Result<Option<(usize, &[u8])>, HelloError> {
    if bytes.first().is_some_and(|&kind| kind != HANDSHAKE) || bytes.get(1).is_some_and(|&major| major != 3) {
        return Err(HelloError::NotTls);
    }
    let Some((header, after)) = bytes.split_at_checked(RECORD_HEADER) else { return Ok(None) };
    match usize::from(u16::from_be_bytes([header[3], header[4]])) {
        0 => Err(HelloError::Malformed),
        length if length > MAX_HELLO => Err(HelloError::TooLarge),
        length => Ok(Some((length, after))),
    }
}

/// The body of the handshake message, once it is whole. A second message right behind it is an offence.
fn whole_message(message: &[u8]) -> Result<Option<&[u8]>, HelloError> {
    if message.first().is_some_and(|&kind| kind != CLIENT_HELLO) {
        return Err(HelloError::NotClientHello);
    }
    let Some((header, body)) = message.split_at_checked(4) else { return Ok(None) };
    let length = usize::from(header[1]) << 16 | usize::from(header[2]) << 8 | usize::from(header[3]);
    if length > MAX_HELLO {
        return Err(HelloError::TooLarge);
    }
    match body.len().cmp(&length) {
        std::cmp::Ordering::Less => Ok(None),
        std::cmp::Ordering::Equal => Ok(Some(body)),
        std::cmp::Ordering::Greater => Err(HelloError::Malformed),
    }
}

fn parse_body(body: &[u8]) -> Option<ClientHello> {
    let mut at = Reader(body);
    at.take(2 + 32)?;
    at.vec8()?;
    at.vec16()?;
    at.vec8()?;
    let mut hello = ClientHello::default();
    if at.0.is_empty() {
        return Some(hello);
    }
    let mut extensions = Reader(at.vec16()?);
    if !at.0.is_empty() {
        return None;
    }
    let mut seen = Vec::new();
    while !extensions.0.is_empty() {
        let (kind, body) = (extensions.u16()?, extensions.vec16()?);
        if !matches!(kind, EXTENSION_SERVER_NAME | EXTENSION_ALPN | EXTENSION_VERSIONS) {
            continue;
        }
        if seen.contains(&kind) {
            return None;
        }
        seen.push(kind);
        match kind {
            EXTENSION_SERVER_NAME => hello.server_name = Some(server_name(body)?),
            EXTENSION_ALPN => hello.alpn = alpn(body)?,
            _ => hello.tls13 = versions(body)?.contains(&TLS13),
        }
    }
    Some(hello)
}

/// Exactly one host name of printable ASCII (RFC 6066, section 3).
fn server_name(body: &[u8]) -> Option<String> {
    let mut body = Reader(body);
    let mut names = Reader(body.vec16()?);
    let (kind, name) = (names.take(1)?, names.vec16()?);
    let whole = body.0.is_empty() && names.0.is_empty();
    let good = kind == [0] && !name.is_empty() && name.len() <= 255 && name.iter().all(u8::is_ascii_graphic);
    (whole && good).then(|| String::from_utf8_lossy(name).into_owned())
}

fn alpn(body: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut body = Reader(body);
    let mut list = Reader(body.vec16()?);
    let mut protocols = Vec::new();
    while !list.0.is_empty() {
        let protocol = list.vec8()?;
        if protocol.is_empty() {
            return None;
        }
        // Nobody offers more in earnest; the rest only costs memory.
        if protocols.len() < 16 {
            protocols.push(protocol.to_vec());
        }
    }
    body.0.is_empty().then_some(protocols)
}

fn versions(body: &[u8]) -> Option<Vec<u16>> {
    let mut body = Reader(body);
    let list = body.vec8()?;
    (body.0.is_empty() && list.len() % 2 == 0)
        .then(|| list.chunks_exact(2).map(|v| u16::from_be_bytes([v[0], v[1]])).collect())
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(n)?;
        self.0 = tail;
        Some(head)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|b| u16::from_be_bytes([b[0], b[1]]))
    }

    fn vec8(&mut self) -> Option<&'a [u8]> {
        let n = usize::from(*self.take(1)?.first()?);
        self.take(n)
    }

    fn vec16(&mut self) -> Option<&'a [u8]> {
        let n = usize::from(self.u16()?);
        self.take(n)
    }
}

/// The alerts that are sent before there is a TLS connection (RFC 8446, section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Alert {
    /// The bytes are no ClientHello.
    DecodeError,
    /// TLS 1.3 is not offered.
    ProtocolVersion,
    /// The name is not served here.
    UnrecognizedName,
    /// `sealane-tcp/1` is not offered.
    NoApplicationProtocol,
    /// The service can not be reached now: the caller should try elsewhere.
    InternalError,
}

impl Alert {
    /// The record to send: fatal, in the clear.
    pub(crate) fn record(self) -> [u8; 7] {
        let code = match self {
            Alert::DecodeError => 50,
            Alert::ProtocolVersion => 70,
            Alert::InternalError => 80,
            Alert::UnrecognizedName => 112,
            Alert::NoApplicationProtocol => 120,
        };
        [21, 3, 3, 0, 2, 2, code]
    }
}

impl fmt::Display for Alert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Alert::DecodeError => "decode_error",
            Alert::ProtocolVersion => "protocol_version",
            Alert::UnrecognizedName => "unrecognized_name",
            Alert::NoApplicationProtocol => "no_application_protocol",
            Alert::InternalError => "internal_error",
        })
    }
}

#[cfg(test)]
pub(crate) mod tests;
