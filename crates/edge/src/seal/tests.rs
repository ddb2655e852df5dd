//! Against `rustls` as the client, in memory.

mod forged;
#[allow(missing_docs, unreachable_pub, dead_code)]
pub(crate) mod harness;
mod traffic;

use std::sync::Arc;

use proptest::prelude::*;
use rustls::version::TLS12;
use rustls::{AlertDescription, ClientConfig, HandshakeKind, NamedGroup, RootCertStore};

use super::*;
use harness::{Identity, Pair, client, provider, read, with_groups, written};

fn refused_with(result: Result<Pair, TlsError>) -> TlsError {
    match result {
        Ok(_) => panic!("a handshake that should not have been"),
        Err(error) => error,
    }
}

#[test]
fn every_suite_and_group_is_spoken() {
    use NamedGroup::{X25519, X25519MLKEM768, secp256r1, secp384r1};
    let identity = Identity::make();
    let server = Arc::new(identity.server());
    for suite in 0..3 {
        // With the last pair the client first guesses a group that we lack: it is asked to try again.
        for groups in [&[X25519MLKEM768, X25519][..], &[X25519], &[secp256r1], &[secp384r1, secp256r1]] {
            let provider = with_groups(provider(suite), groups);
            let mut pair = Pair::new(&server, client(identity.client_with(provider)));
            let mut wire = Vec::new();
            pair.session.seal(b"a part", &mut wire).unwrap();
            assert_eq!(wire.len(), 6 + RECORD_OVERHEAD);
            assert_eq!(read(&mut pair.client, &wire).unwrap(), b"a part");
        }
    }
    let resumption = Pair::shake(&server, client(identity.client()), &[], |handshake| {
        assert_eq!(handshake.resumed(), Some(false));
    });
    assert_eq!(resumption.unwrap().client.handshake_kind(), Some(HandshakeKind::Full));
}

#[test]
fn a_request_that_comes_with_the_end_of_the_handshake_is_not_lost() {
    let identity = Identity::make();
    let mut says = client(identity.client());
    std::io::Write::write_all(&mut says.writer(), b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut pair = Pair::new(&Arc::new(identity.server()), says);
    let (mut replies, mut plain) = (Vec::new(), Vec::new());
    let opened = pair.session.open(&mut pair.incoming, &mut replies, &mut plain).unwrap();
    assert_eq!((opened, &plain[..], replies.len()), (Opened::Open, &b"GET / HTTP/1.1\r\n\r\n"[..], 0));
    assert!(pair.incoming.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 48, ..Default::default() })]

    #[test]
    fn a_handshake_may_come_in_any_pieces(
        suite in 0..3_usize,
        pieces in prop::collection::vec(1..600_usize, 1..20),
        request in prop::collection::vec(any::<u8>(), 0..40_000),
    ) {
        let identity = Identity::make();
        let mut says = client(identity.client_with(provider(suite)));
        says.set_buffer_limit(None);
        std::io::Write::write_all(&mut says.writer(), &request).unwrap();
        let mut pair = Pair::shake(&Arc::new(identity.server()), says, &pieces, |_| {}).unwrap();
        let (mut replies, mut plain) = (Vec::new(), Vec::new());
        pair.session.open(&mut pair.incoming, &mut replies, &mut plain).unwrap();
        prop_assert_eq!(plain, request);
        prop_assert!(pair.incoming.is_empty() && replies.is_empty());
    }

    #[test]
    fn no_bytes_are_too_strange_for_a_handshake(
        mut bytes in prop::collection::vec(any::<u8>(), 0..2_000),
        head in prop::sample::select(vec![&b""[..], &[22, 3, 1], &[22, 3, 1, 0], &[22, 3, 3, 1, 0, 1], &[23, 3, 3], &[20, 3, 3, 0, 1, 1]]),
        cut in 0..2_000_usize,
    ) {
        bytes.splice(..0, head.iter().copied());
        let mut handshake = Handshake::new(Arc::new(Identity::make().server())).unwrap();
        let (mut incoming, mut outgoing) = (Vec::new(), Vec::new());
        for piece in [&bytes[..cut.min(bytes.len())], &bytes[cut.min(bytes.len())..]] {
            incoming.extend_from_slice(piece);
            match handshake.advance(&mut incoming, &mut outgoing) {
                Ok(progress) => prop_assert_eq!(progress, Progress::NeedsMore),
                Err(_) => break,
            }
        }
        prop_assert!(matches!(handshake.finish(), Err(TlsError::Unfinished)));
    }

    #[test]
    fn a_handshake_with_any_byte_changed_ends_or_waits(at in 0..2_000_usize, bit in 0..8_u8) {
        let identity = Identity::make();
        let mut says = client(identity.client());
        let mut handshake = Handshake::new(Arc::new(identity.server())).unwrap();
        let (mut incoming, mut outgoing) = (Vec::new(), Vec::new());
        let mut said = 0;
        for _flight in 0..3 {
            let mut flight = written(&mut says);
            if let Some(byte) = at.checked_sub(said).and_then(|at| flight.get_mut(at)) {
                *byte ^= 1 << bit;
            }
            said += flight.len();
            incoming.extend(flight);
            let progress = handshake.advance(&mut incoming, &mut outgoing);
            // Whole records, whatever they say.
            let mut rest = &outgoing[..];
            while let [20..=23, 3, 3, high, low, body @ ..] = rest {
                rest = &body[usize::from(u16::from_be_bytes([*high, *low]))..];
            }
            prop_assert!(rest.is_empty());
            match progress {
                // Either the client noticed, or the change was where nothing is checked: it came after the end, or in
                // the version of a record, which means nothing (RFC 8446, section 5.1).
                Ok(Progress::Established) => {
                    prop_assert!(handshake.finish().is_ok());
                    return Ok(());
                }
                Ok(Progress::NeedsMore) => {}
                Err(_) => return Ok(()),
            }
            if read(&mut says, &std::mem::take(&mut outgoing)).is_err() {
                return Ok(());
            }
        }
    }
}

/// The alert that a handshake with `bytes` from the client ends with.
fn alert_for(bytes: &[u8]) -> Option<u8> {
    let mut handshake = Handshake::new(Arc::new(Identity::make().server())).unwrap();
    let mut outgoing = Vec::new();
    let result = handshake.advance(&mut bytes.to_vec(), &mut outgoing);
    assert!(result.is_err(), "{bytes:?}");
    match outgoing[..] {
        [21, 3, 3, 0, 2, 2, alert] => Some(alert),
        [] => None,
        _ => panic!("{outgoing:?}"),
    }
}

#[test]
fn what_is_no_handshake_gets_its_alert() {
    use AlertDescription as Alert;
    let long = [&[22, 3, 1, 0x48, 1][..], &[0; 100]].concat();
    let too_long = [&[22, 3, 1, 0x41, 1][..], &[0; 100]].concat();
    let ssl2 = [0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10, 1, 0, 0x80];
    for (bytes, alert) in [
        (&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], Some(Alert::DecodeError)),
        (&ssl2, Some(Alert::DecodeError)),
        (&long, Some(Alert::DecodeError)),
        (&too_long, Some(Alert::RecordOverflow)),
        (&[22, 3, 1, 0, 0], Some(Alert::DecodeError)),
        (&[23, 3, 3, 0, 3, 1, 2, 3], Some(Alert::UnexpectedMessage)),
        (&[21, 3, 3, 0, 2, 2, 80], None),
    ] {
        assert_eq!(alert_for(bytes), alert.map(u8::from), "{bytes:?}");
    }
}

#[test]
fn a_client_of_tls_1_2_or_another_protocol_is_refused() {
    let identity = Identity::make();
    let mut roots = RootCertStore::empty();
    roots.add(identity.certificate.clone()).unwrap();
    let old = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let server = Arc::new(identity.server());
    let error = refused_with(Pair::shake(&server, client(old), &[], |_| {}));
    assert!(matches!(error, TlsError::Handshake(rustls::Error::PeerIncompatible(_))), "{error}");

    let mut http2 = identity.client();
    http2.alpn_protocols = vec![b"h2".to_vec()];
    let error = refused_with(Pair::shake(&server, client(http2), &[], |_| {}));
    assert!(matches!(error, TlsError::Handshake(rustls::Error::NoApplicationProtocol)), "{error}");
}

#[test]
fn a_handshake_is_bounded() {
    // A message of 65,535 bytes announced: no more is taken of it than we allow.
    let mut handshake = Handshake::new(Arc::new(Identity::make().server())).unwrap();
    let (mut incoming, mut outgoing) = (Vec::new(), Vec::new());
    let mut first = true;
    let mut sent = 0;
    let error = loop {
        let mut record = vec![22, 3, 1, 0, 100];
        record.resize(105, 0);
        if std::mem::take(&mut first) {
            record[5..9].copy_from_slice(&[1, 0, 0xff, 0xff]);
        }
        sent += record.len();
        incoming.extend_from_slice(&record);
        match handshake.advance(&mut incoming, &mut outgoing) {
            Ok(progress) => assert_eq!(progress, Progress::NeedsMore),
            Err(error) => break error,
        }
        assert!(incoming.len() <= HANDSHAKE_BYTES_MAX);
    };
    assert!(matches!(error, TlsError::TooLong), "{error}");
    assert!((HANDSHAKE_BYTES_MAX..HANDSHAKE_BYTES_MAX + 105).contains(&sent), "{sent}");
    assert_eq!(outgoing[..], [21, 3, 3, 0, 2, 2, u8::from(AlertDescription::DecodeError)]);

    // Nor is the rest of a record awaited that would be too much.
    let mut handshake = Handshake::new(Arc::new(Identity::make().server())).unwrap();
    let record = [&[22, 3, 1, 0x40, 0, 1, 0, 0xff, 0xff][..], &[0; 16_380]].concat();
    let (mut incoming, again) = (record.clone(), &record[..5]);
    assert_eq!(handshake.advance(&mut incoming, &mut outgoing).unwrap(), Progress::NeedsMore);
    incoming.extend_from_slice(again);
    let error = handshake.advance(&mut incoming, &mut outgoing);
    assert!(matches!(error, Err(TlsError::TooLong)), "{error:?}");
}

#[test]
fn a_session_is_small() {
    // Beside it `rustls` boxes secrets of some 300 bytes: `tests/tls_memory.rs` counts those too.
    assert!(size_of::<Session>() <= 704, "{}", size_of::<Session>());
}
