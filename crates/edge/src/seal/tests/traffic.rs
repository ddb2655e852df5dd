//! What goes through an established connection.

use super::*;
use std::collections::VecDeque;

#[derive(Clone, Debug)]
enum Act {
    /// The server sends that many bytes, in pieces of these lengths.
    Down(Vec<usize>),
    /// The client sends that many bytes.
    Up(usize),
    /// The client takes a new key and asks for one.
    Update,
    /// So many bytes arrive at the server; the client always gets everything.
    Arrive(usize),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => prop::collection::vec(prop_oneof![0..20_usize, 0..40_000_usize], 0..4).prop_map(Act::Down),
        3 => prop_oneof![0..40_usize, 0..40_000_usize].prop_map(Act::Up),
        1 => Just(Act::Update),
        4 => prop_oneof![1..30_usize, 1..50_000_usize].prop_map(Act::Arrive),
    ]
}

/// Bytes that differ from place to place.
fn noise(from: usize, len: usize) -> Vec<u8> {
    (from..from + len).map(|at| (at * 7 + at / 251) as u8).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..Default::default() })]

    #[test]
    fn everything_arrives_once_and_in_order(
        suite in 0..3_usize,
        key_records in 1..20_u64,
        acts in prop::collection::vec(act(), 0..60),
    ) {
        let identity = Identity::make();
        let mut pair = Pair::new(&Arc::new(identity.server()), client(identity.client_with(provider(suite))));
        pair.client.set_buffer_limit(None);
        let mut session = pair.session.with_key_records_max(key_records);
        let mut wire = VecDeque::new();
        let (mut said, mut heard) = (Vec::new(), Vec::new());
        let (mut sent, mut got) = (Vec::new(), Vec::new());
        let mut incoming = pair.incoming;
        let mut updates = 0;
        for act in acts.into_iter().chain([Act::Arrive(usize::MAX)]) {
            let mut out = Vec::new();
            match act {
                Act::Down(lens) => {
                    let pieces: Vec<_> = lens.iter().map(|len| noise(sent.len() + len, *len)).collect();
                    let pieces: Vec<_> = pieces.iter().map(|piece| &piece[..]).collect();
                    let all = pieces.concat();
                    if lens.len() % 2 == 0 {
                        session.seal_gathered(&pieces, &mut out).unwrap();
                    } else {
                        out = [&[0xee; HEADER_BYTES][..], &all].concat();
                        session.seal_in_place(&mut out, &mut b"left over".to_vec()).unwrap();
                    }
                    let overhead = out.len();
                    let records = all.len().div_ceil(FRAGMENT_BYTES_MAX);
                    prop_assert!(overhead >= all.len() + records * RECORD_OVERHEAD);
                    sent.extend(all);
                }
                Act::Up(len) => {
                    let plain = noise(said.len(), len);
                    std::io::Write::write_all(&mut pair.client.writer(), &plain).unwrap();
                    wire.extend(written(&mut pair.client));
                    said.extend(plain);
                }
                // More than that is refused; `forged` has it.
                Act::Update if updates < KEY_UPDATES_MAX => {
                    updates += 1;
                    pair.client.refresh_traffic_keys().unwrap();
                    wire.extend(written(&mut pair.client));
                }
                Act::Update => {}
                Act::Arrive(len) => {
                    incoming.extend(wire.drain(..len.min(wire.len())));
                    prop_assert_eq!(session.open(&mut incoming, &mut out, &mut heard).unwrap(), Opened::Open);
                    prop_assert!(out.len() <= 64);
                }
            }
            got.extend(read(&mut pair.client, &out).unwrap());
            wire.extend(written(&mut pair.client));
        }
        prop_assert!(incoming.is_empty());
        prop_assert!(got == sent && heard == said);

        let mut out = Vec::new();
        session.close(&mut out).unwrap();
        session.close(&mut out).unwrap();
        prop_assert_eq!(out.len(), 2 + RECORD_OVERHEAD);
        prop_assert_eq!(pair.client.read_tls(&mut &out[..]).unwrap(), out.len());
        prop_assert!(pair.client.process_new_packets().unwrap().peer_has_closed());
        prop_assert!(matches!(session.seal(b"more", &mut out), Err(TlsError::Closed)));
        let mut plain = [&[0; HEADER_BYTES][..], b"more"].concat();
        prop_assert!(matches!(session.seal_in_place(&mut plain, &mut Vec::new()), Err(TlsError::Closed)));
        prop_assert!(plain.is_empty(), "nothing plain is left to be sent");
    }

    #[test]
    fn a_record_changed_on_its_way_ends_the_connection(
        suite in 0..3_usize,
        len in 0..40_000_usize,
        at: prop::sample::Index,
        bit in 0..8_u8,
        cut: prop::sample::Index,
    ) {
        let identity = Identity::make();
        let mut pair = Pair::new(&Arc::new(identity.server()), client(identity.client_with(provider(suite))));
        pair.client.set_buffer_limit(None);
        let plain = noise(0, len);
        let mut wire = pair.up(&plain);
        wire.extend(pair.up(b"the end"));
        let at = at.index(wire.len());
        wire[at] ^= 1 << bit;
        let (mut replies, mut heard) = (Vec::new(), Vec::new());
        let mut result = Ok(Opened::Open);
        let cut = cut.index(wire.len());
        for piece in [&wire[..cut], &wire[cut..]] {
            pair.incoming.extend_from_slice(piece);
            result = pair.session.open(&mut pair.incoming, &mut replies, &mut heard);
            if result.is_err() {
                break;
            }
        }
        // Only whole records from before the change were believed.
        let all = [&plain[..], b"the end"].concat();
        prop_assert!(all.starts_with(&heard) && heard.len() < all.len());
        match result {
            // A length that grew: the rest is awaited in vain.
            Ok(opened) => prop_assert!(opened == Opened::Open && !pair.incoming.is_empty()),
            Err(TlsError::Refused(alert)) => {
                prop_assert!(pair.incoming.is_empty());
                let told = read(&mut pair.client, &replies);
                prop_assert_eq!(told, Err(rustls::Error::AlertReceived(alert)));
                prop_assert!(matches!(pair.session.seal(b"", &mut replies), Err(TlsError::Closed)));
            }
            Err(error) => prop_assert!(false, "{error}"),
        }
    }

    #[test]
    fn a_connection_cut_anywhere_shows_a_prefix(len in 0..40_000_usize, cut: prop::sample::Index) {
        let identity = Identity::make();
        let mut pair = Pair::new(&Arc::new(identity.server()), client(identity.client()));
        pair.client.set_buffer_limit(None);
        let plain = noise(0, len);
        let mut wire = pair.up(&plain);
        pair.client.send_close_notify();
        wire.extend(written(&mut pair.client));
        wire.truncate(cut.index(wire.len()));
        let (mut replies, mut heard) = (Vec::new(), Vec::new());
        pair.incoming.extend(wire);
        // Never `Closed`: a cut is no end that the client meant.
        let opened = pair.session.open(&mut pair.incoming, &mut replies, &mut heard);
        prop_assert_eq!(opened.unwrap(), Opened::Open);
        prop_assert!(plain.starts_with(&heard) && replies.is_empty());
    }
}

#[test]
fn the_end_of_the_peer_is_understood() {
    let identity = Identity::make();
    let mut pair = Pair::new(&Arc::new(identity.server()), client(identity.client()));
    pair.incoming.extend(written(&mut pair.client));
    let last = pair.up(b"the last words");
    pair.incoming.extend(last);
    pair.client.send_close_notify();
    pair.incoming.extend(written(&mut pair.client));
    pair.incoming.extend([1, 2, 3]);
    let (mut replies, mut heard) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let opened = pair.session.open(&mut pair.incoming, &mut replies, &mut heard).unwrap();
        assert_eq!((opened, pair.incoming.len(), replies.len()), (Opened::Closed, 0, 0));
        assert_eq!(heard, b"the last words");
    }
    // It said that it sends no more, not that it hears no more.
    let mut out = Vec::new();
    pair.session.seal(b"to the end", &mut out).unwrap();
    assert_eq!(read(&mut pair.client, &out).unwrap(), b"to the end");
}

#[test]
fn a_key_is_changed_long_before_the_limit_of_its_cipher() {
    let identity = Identity::make();
    for suite in 0..3 {
        let pair = Pair::new(&Arc::new(identity.server()), client(identity.client_with(provider(suite))));
        let limit = pair.client.negotiated_cipher_suite().unwrap().tls13().unwrap();
        assert_eq!(pair.session.key_records_max(), limit.common.confidentiality_limit / 2);
    }
}

#[test]
fn a_buffer_grows_once_and_only_by_what_is_sealed() {
    let identity = Identity::make();
    let mut pair = Pair::new(&Arc::new(identity.server()), client(identity.client()));
    for len in [1, 3_000, FRAGMENT_BYTES_MAX, HEADER_BYTES, FRAGMENT_BYTES_MAX + 1, 5 * FRAGMENT_BYTES_MAX] {
        let expected = len + len.div_ceil(FRAGMENT_BYTES_MAX) * RECORD_OVERHEAD;
        let mut out = Vec::with_capacity(expected);
        let place = out.as_ptr();
        pair.session.seal(&noise(0, len), &mut out).unwrap();
        assert_eq!((out.len(), out.as_ptr()), (expected, place));
        assert_eq!(read(&mut pair.client, &out).unwrap().len(), len);
    }
    let mut out = Vec::new();
    pair.session.seal(b"", &mut out).unwrap();
    pair.session.seal_gathered(&[b"", b""], &mut out).unwrap();
    assert!(out.is_empty());
}
