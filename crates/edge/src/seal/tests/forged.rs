//! Records that no client of ours would send: made with the client's own keys.

use super::super::keys::Keys;
use super::*;
use rustls::ContentType;

/// A client that can say anything.
struct Forger {
    keys: Keys,
    session: Session,
    incoming: Vec<u8>,
    replies: Vec<u8>,
    plain: Vec<u8>,
    /// To read our replies with.
    ours: Keys,
}

const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];
const KEY_UPDATE_REQUEST: [u8; 5] = [24, 0, 0, 1, 1];

impl Forger {
    fn new() -> Self {
        let identity = Identity::make();
        let mut config = identity.client();
        config.enable_secret_extraction = true;
        let pair = Pair::new(&Arc::new(identity.server()), client(config));
        let secrets = pair.client.dangerous_extract_secrets().unwrap();
        Self {
            keys: Keys::new(secrets.tx).unwrap(),
            ours: Keys::new(secrets.rx).unwrap(),
            session: pair.session,
            incoming: pair.incoming,
            replies: Vec::new(),
            plain: Vec::new(),
        }
    }

    fn record(&mut self, kind: u8, content: &[u8]) {
        let key = self.keys.expand().unwrap();
        self.keys.seal(&key, ContentType::from(kind), [content], &mut self.incoming).unwrap();
    }

    fn open(&mut self) -> Result<Opened, TlsError> {
        self.session.open(&mut self.incoming, &mut self.replies, &mut self.plain)
    }

    /// Opens, and expects that this is refused with `alert`, which is sent too.
    fn refused(&mut self, alert: AlertDescription) {
        let result = self.open();
        assert!(matches!(result, Err(TlsError::Refused(sent)) if sent == alert), "{result:?}, not {alert:?}");
        let replies = std::mem::take(&mut self.replies);
        assert_eq!(self.reply(&replies), (u8::from(ContentType::Alert), vec![2, u8::from(alert)]));
        assert!(matches!(self.open(), Err(TlsError::Closed)));
        assert!(self.replies.is_empty() && self.incoming.is_empty());
    }

    fn reply(&mut self, record: &[u8]) -> (u8, Vec<u8>) {
        let key = self.ours.expand().unwrap();
        let mut record = record.to_vec();
        let (kind, content) = self.ours.open(&key, &mut record).unwrap();
        (u8::from(kind), content.to_vec())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 256, ..Default::default() })]

    #[test]
    fn no_record_is_too_strange(
        records in prop::collection::vec((prop_oneof![20..25_u8, any::<u8>()], prop::collection::vec(prop_oneof![0..2_u8, Just(24), any::<u8>()], 0..12)), 0..20),
        bytes: Vec<u8>,
    ) {
        let framed = records.iter().flat_map(|(kind, content)| {
            [*kind, 0, content.len() as u8].into_iter().chain(content.iter().copied())
        });
        crate::fuzz::tls_session(&framed.collect::<Vec<_>>());
        crate::fuzz::tls_session(&bytes);
        crate::fuzz::tls_handshake(&bytes);
    }
}

#[test]
fn every_breach_of_the_rules_gets_its_alert() {
    use AlertDescription as Alert;
    const DATA: u8 = 23;
    const HANDSHAKE: u8 = 22;
    const ALERT: u8 = 21;
    type Records<'a> = &'a [(u8, &'a [u8])];
    let cases: &[(Records<'_>, Alert)] = &[
        // Types that have no business in a protected record.
        (&[(20, &[1])], Alert::UnexpectedMessage),
        (&[(24, b"heartbeat")], Alert::UnexpectedMessage),
        (&[(99, b"")], Alert::UnexpectedMessage),
        // Nothing but padding: no type at all.
        (&[(0, &[0; 100])], Alert::UnexpectedMessage),
        // Alerts that are none.
        (&[(ALERT, b"")], Alert::UnexpectedMessage),
        (&[(ALERT, &[1])], Alert::DecodeError),
        (&[(ALERT, &[1, 0, 1, 0])], Alert::DecodeError),
        // Handshake messages that a client may not send, at least not unasked.
        (&[(HANDSHAKE, b"")], Alert::UnexpectedMessage),
        (&[(HANDSHAKE, &[1, 0, 0, 0])], Alert::UnexpectedMessage),
        (&[(HANDSHAKE, &[4, 0, 0, 0])], Alert::UnexpectedMessage),
        (&[(HANDSHAKE, &[11, 0, 0, 0])], Alert::UnexpectedMessage),
        (&[(HANDSHAKE, &[20, 0, 0, 32])], Alert::UnexpectedMessage),
        // Key updates that are none.
        (&[(HANDSHAKE, &[24, 0, 0, 0])], Alert::DecodeError),
        (&[(HANDSHAKE, &[24, 0, 0, 2, 0, 0])], Alert::DecodeError),
        (&[(HANDSHAKE, &[24, 1])], Alert::DecodeError),
        (&[(HANDSHAKE, &[24, 0, 0, 1, 2])], Alert::IllegalParameter),
        (&[(HANDSHAKE, &[24, 0, 0, 1, 0, 24, 0, 0, 1, 0])], Alert::UnexpectedMessage),
        // A message in pieces with something between them.
        (&[(HANDSHAKE, &KEY_UPDATE[..3]), (DATA, b"data")], Alert::UnexpectedMessage),
        (&[(HANDSHAKE, &KEY_UPDATE[..3]), (ALERT, &[1, 0])], Alert::UnexpectedMessage),
        (&[(HANDSHAKE, &KEY_UPDATE[..3]), (HANDSHAKE, b"")], Alert::UnexpectedMessage),
        (&[(HANDSHAKE, &KEY_UPDATE[..3]), (HANDSHAKE, &[7])], Alert::DecodeError),
    ];
    for (records, alert) in cases {
        let mut forger = Forger::new();
        forger.record(DATA, b"before");
        for (kind, content) in *records {
            forger.record(*kind, content);
        }
        forger.record(DATA, b"after");
        forger.refused(*alert);
        assert_eq!(forger.plain, b"before", "{records:?}");
    }
}

#[test]
fn records_that_are_not_protected_or_too_long_are_refused() {
    use AlertDescription as Alert;
    for (bytes, alert) in [
        (&[21, 3, 3, 0, 2, 1, 0][..], Alert::UnexpectedMessage),
        (&[20, 3, 3, 0, 1, 1], Alert::UnexpectedMessage),
        (&[22, 3, 3, 0, 5, 24, 0, 0, 1, 0], Alert::UnexpectedMessage),
        (b"GET / HTTP/1.1\r\n\r\n", Alert::UnexpectedMessage),
        // Refused before its bytes are awaited.
        (&[23, 3, 3, 0x41, 1], Alert::RecordOverflow),
        (&[23, 3, 3, 0xff, 0xff], Alert::RecordOverflow),
        (&[23, 3, 3, 0, 0], Alert::BadRecordMac),
        (&[23, 3, 3, 0, 3, 1, 2, 3], Alert::BadRecordMac),
        (&[23, 3, 3, 0, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], Alert::BadRecordMac),
    ] {
        let mut forger = Forger::new();
        forger.incoming.extend_from_slice(bytes);
        forger.refused(alert);
    }
    // The longest that may be, with padding to the limit of the body, and one byte of content more.
    let longest = [7; FRAGMENT_BYTES_MAX];
    let mut forger = Forger::new();
    forger.record(23, &longest);
    assert_eq!(forger.open().unwrap(), Opened::Open);
    assert_eq!(forger.plain.len(), FRAGMENT_BYTES_MAX);
}

#[test]
fn padding_is_taken_off() {
    let mut forger = Forger::new();
    // The type that counts is the last byte that is not zero, here 23 after the content.
    let padded = [&b"content"[..], &[23], &[0; 200]].concat();
    forger.record(0, &padded);
    forger.record(23, b", and more");
    assert_eq!(forger.open().unwrap(), Opened::Open);
    assert_eq!(forger.plain, b"content, and more");
}

#[test]
fn what_the_peer_ends_is_not_answered() {
    for (alert, level) in [(AlertDescription::InternalError, 2), (AlertDescription::BadCertificate, 1)] {
        let mut forger = Forger::new();
        forger.record(21, &[level, u8::from(alert)]);
        let result = forger.open();
        assert!(matches!(result, Err(TlsError::Alert(sent)) if sent == alert), "{result:?}");
        assert!(forger.replies.is_empty());
        assert!(matches!(forger.session.seal(b"", &mut Vec::new()), Err(TlsError::Closed)));
    }
    let mut forger = Forger::new();
    forger.record(21, &[1, u8::from(AlertDescription::UserCanceled)]);
    forger.record(23, b"still here");
    forger.record(21, &[1, 0]);
    assert_eq!(forger.open().unwrap(), Opened::Closed);
    assert_eq!(forger.plain, b"still here");
}

#[test]
fn a_key_update_may_come_in_pieces() {
    let mut forger = Forger::new();
    for byte in KEY_UPDATE_REQUEST {
        forger.record(22, &[byte]);
    }
    assert_eq!(forger.open().unwrap(), Opened::Open);
    let replies = std::mem::take(&mut forger.replies);
    assert_eq!(forger.reply(&replies), (22, KEY_UPDATE.to_vec()));
    // What the forger sends now has the old key.
    forger.record(23, b"");
    assert!(matches!(forger.open(), Err(TlsError::Refused(AlertDescription::BadRecordMac))));
}

#[test]
fn a_flood_of_records_without_content_is_refused() {
    let mut forger = Forger::new();
    for _ in 0..2 {
        for _ in 0..EMPTY_RECORDS_MAX / 2 {
            forger.record(23, b"");
            forger.record(21, &[1, u8::from(AlertDescription::UserCanceled)]);
        }
        forger.record(23, b"content");
        assert_eq!(forger.open().unwrap(), Opened::Open);
    }
    for _ in 0..=EMPTY_RECORDS_MAX {
        forger.record(23, b"");
    }
    forger.refused(AlertDescription::UnexpectedMessage);
}

#[test]
fn a_flood_of_key_updates_is_refused_and_answered_sparingly() {
    let identity = Identity::make();
    let mut pair = Pair::new(&Arc::new(identity.server()), client(identity.client()));
    let (mut replies, mut plain, mut out) = (Vec::new(), Vec::new(), Vec::new());
    let update = |pair: &mut Pair| {
        pair.client.refresh_traffic_keys().unwrap();
        let wire = written(&mut pair.client);
        pair.incoming.extend(wire);
    };
    for _ in 0..KEY_UPDATES_MAX {
        update(&mut pair);
    }
    pair.session.open(&mut pair.incoming, &mut replies, &mut plain).unwrap();
    assert_eq!(replies.len(), 5 + RECORD_OVERHEAD, "all are answered by one");
    read(&mut pair.client, &replies).unwrap();
    replies.clear();
    // Whoever goes on listening may go on changing keys, now and then.
    for _ in 0..RECORDS_PER_KEY_UPDATE + 1 {
        pair.session.seal(b"a part", &mut out).unwrap();
    }
    read(&mut pair.client, &out).unwrap();
    update(&mut pair);
    assert_eq!(pair.session.open(&mut pair.incoming, &mut replies, &mut plain).unwrap(), Opened::Open);
    read(&mut pair.client, &std::mem::take(&mut replies)).unwrap();
    update(&mut pair);
    let result = pair.session.open(&mut pair.incoming, &mut replies, &mut plain);
    assert!(matches!(result, Err(TlsError::Refused(AlertDescription::UnexpectedMessage))), "{result:?}");
    let told = read(&mut pair.client, &replies);
    assert_eq!(told, Err(rustls::Error::AlertReceived(AlertDescription::UnexpectedMessage)));
}
