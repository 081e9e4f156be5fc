use super::*;
use proptest::prelude::*;
use std::sync::Arc;

/// A ClientHello as our own TLS library writes it.
pub(crate) fn real(name: &str) -> Vec<u8> {
    let mut config = rustls::ClientConfig::builder_with_provider(sealane_trust::tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = vec![b"sealane-tcp/1".to_vec()];
    let name = rustls::pki_types::ServerName::try_from(name.to_owned()).unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

fn expected(name: &str) -> ClientHello {
    ClientHello { server_name: Some(name.into()), alpn: vec![b"sealane-tcp/1".to_vec()], tls13: true }
}

/// The same handshake message, cut into records of the given content lengths.
fn recut(bytes: &[u8], sizes: &[usize]) -> Vec<u8> {
    let mut message = &bytes[RECORD_HEADER..];
    let mut out = Vec::new();
    let mut sizes = sizes.iter().copied().cycle();
    while !message.is_empty() {
        let n = sizes.next().unwrap().clamp(1, message.len());
        out.extend_from_slice(&[HANDSHAKE, 3, 1]);
        out.extend_from_slice(&u16::try_from(n).unwrap().to_be_bytes());
        out.extend_from_slice(&message[..n]);
        message = &message[n..];
    }
    out
}

const NAME: &str = "p80.cart.shop.svc.clusterset.local";

#[test]
fn a_hello_is_read_when_whole_and_not_before() {
    let bytes = real(NAME);
    for n in 0..bytes.len() {
        assert_eq!(parse(&bytes[..n]), Ok(None), "{n} bytes");
    }
    assert_eq!(parse(&bytes), Ok(Some(expected(NAME))));
}

#[test]
fn what_can_not_become_a_hello_is_refused_at_once() {
    assert_eq!(parse(b"GET / HTTP/1.1\r\n"), Err(HelloError::NotTls));
    assert_eq!(parse(&[22, 2]), Err(HelloError::NotTls));
    assert_eq!(parse(&[22, 3, 1, 0, 0]), Err(HelloError::Malformed));
    assert_eq!(parse(&[22, 3, 1, 0x40, 1]), Err(HelloError::TooLarge));
    assert_eq!(parse(&[22, 3, 1, 0x10, 0, 2]), Err(HelloError::NotClientHello));
    assert_eq!(parse(&[22, 3, 1, 0x10, 0, 1, 1, 0, 0]), Err(HelloError::TooLarge));
    let second_message = [&real(NAME)[..], &[22, 3, 1, 0, 1, 1]].concat();
    assert_eq!(parse(&second_message), Ok(Some(expected(NAME))), "what follows is sent on, not read");
}

#[test]
fn records_are_counted() {
    let bytes = real(NAME);
    let message = bytes.len() - RECORD_HEADER;
    assert_eq!(parse(&recut(&bytes, &[message.div_ceil(MAX_RECORDS - 1)])), Ok(Some(expected(NAME))));
    assert_eq!(parse(&recut(&bytes, &[1])), Err(HelloError::TooLarge));
}

#[test]
fn an_alert_is_a_fatal_record_in_the_clear() {
    assert_eq!(Alert::UnrecognizedName.record(), [21, 3, 3, 0, 2, 2, 112]);
}

proptest! {
    #[test]
    fn any_cut_into_records_reads_the_same(sizes in proptest::collection::vec(12usize..400, 1..8), part in 0.0f64..1.0) {
        let bytes = recut(&real(NAME), &sizes);
        prop_assert_eq!(parse(&bytes), Ok(Some(expected(NAME))));
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let n = (bytes.len() as f64 * part) as usize;
        prop_assert_eq!(parse(&bytes[..n]), Ok(None));
    }

    #[test]
    fn garbage_never_panics_nor_waits_for_ever(bytes in proptest::collection::vec(any::<u8>(), 0..64), tail in any::<u8>()) {
        let _ = parse(&bytes);
        let full = [&bytes[..], &vec![tail; MAX_HELLO]].concat();
        prop_assert!(!matches!(parse(&full), Ok(None)));
    }

    #[test]
    fn a_damaged_hello_never_panics(at in 0usize..200, value in any::<u8>()) {
        let mut bytes = real(NAME);
        let at = at.min(bytes.len() - 1);
        bytes[at] = value;
        let _ = parse(&bytes);
    }
}
