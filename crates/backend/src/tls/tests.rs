//! Certificates on a disk, and handshakes in memory.

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;

use admission::ticket::{TicketKey, TicketKeys};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConnection};

use super::*;
use crate::freeze;

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Writes a certificate for `name` to two files.
fn write(directory: &Path, name: &str) -> TlsConfig {
    let made = OwnCertificate::make(&names(&[name]), SystemTime::now()).unwrap();
    let certificate = directory.join("certificate.pem");
    let key = directory.join("key.pem");
    // Both in both: each is looked for where it belongs.
    for file in [&certificate, &key] {
        fs::write(file, made.pem()).unwrap();
    }
    TlsConfig { certificate: Some(certificate), key: Some(key), ..TlsConfig::default() }
}

/// A client that trusts what `tls` shows.
fn client_of(tls: &Tls, protocols: &[&str]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(tls.certificate().key.cert[0].clone()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::in_memory_sessions(8);
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// A handshake; how it was made, or why it was not, and what was agreed on.
fn shake(
    tls: &Tls,
    door: Door,
    client: &Arc<ClientConfig>,
) -> Result<(HandshakeKind, Option<Vec<u8>>), rustls::Error> {
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = ClientConnection::new(client.clone(), name).unwrap();
    let mut server = ServerConnection::new(tls.config(door)).unwrap();
    for _ in 0..4 {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut &wire[..]).unwrap();
        server.process_new_packets()?;
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut rest = &wire[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets()?;
        }
    }
    let _ = client.reader().read(&mut [0; 1]);
    assert!(!client.is_handshaking() && !server.is_handshaking());
    assert_eq!(client.handshake_kind(), server.handshake_kind());
    Ok((client.handshake_kind().unwrap(), client.alpn_protocol().map(<[u8]>::to_vec)))
}

#[test]
fn without_settings_there_is_no_tls() {
    let directory = tempfile::tempdir().unwrap();
    assert!(Tls::open(&TlsConfig::default(), directory.path()).unwrap().is_none());
    assert!(!directory.path().join("keys/tls.pem").exists());
    assert_eq!((TlsConfig::default().is_on(), TlsConfig::default().scheme()), (false, "http"));
}

#[test]
fn what_does_not_go_together_names_its_key() {
    let file = || Some(PathBuf::from("a.pem"));
    let many = (0..33).map(|at| format!("a{at}.example")).collect();
    let cases = [
        ("key", TlsConfig { certificate: file(), ..TlsConfig::default() }),
        ("certificate", TlsConfig { key: file(), ..TlsConfig::default() }),
        ("key", TlsConfig { certificate: file(), key: Some("".into()), ..TlsConfig::default() }),
        (
            "self_signed",
            TlsConfig { certificate: file(), key: file(), self_signed: true, ..TlsConfig::default() },
        ),
        ("hsts_s", TlsConfig { hsts_s: 63_072_001, ..TlsConfig::default() }),
        ("names", TlsConfig { names: many, ..TlsConfig::default() }),
        ("names", TlsConfig { names: names(&["a b"]), ..TlsConfig::default() }),
        ("names", TlsConfig { names: names(&[""]), ..TlsConfig::default() }),
    ];
    for (key, config) in cases {
        assert_eq!(config.check().unwrap_err().key, key, "{config:?}");
    }
    let names = names(&["192.0.2.1", "2001:db8::1", "talk.example", "*.talk.example"]);
    assert_eq!(TlsConfig { self_signed: true, names, ..TlsConfig::default() }.check(), Ok(()));
}

#[test]
fn a_certificate_is_made_once_and_kept_to_ourselves() {
    let directory = tempfile::tempdir().unwrap();
    let config = TlsConfig { self_signed: true, names: names(&["192.0.2.7"]), ..TlsConfig::default() };
    let shown: std::collections::BTreeSet<_> = std::thread::scope(|scope| {
        let open = || Tls::open(&config, directory.path()).unwrap().unwrap();
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
        let shown = |tls: Tls| tls.certificate().key.cert[0].to_vec();
        threads.into_iter().map(|thread| shown(thread.join().unwrap())).collect()
    });
    assert_eq!(shown.len(), 1);
    let file = directory.path().join("keys/tls.pem");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    let tls = Tls::open(&config, directory.path()).unwrap().unwrap();
    let facts = tls.certificate().facts.clone().unwrap();
    for host in ["localhost", "127.0.0.1", "[::1]", "192.0.2.7"] {
        assert!(facts.covers(host), "{host} {facts:?}");
    }
    assert!(!facts.covers("talk.example"));
    let year = Duration::from_secs(365 * 86_400);
    assert!(facts.not_after > SystemTime::now() + year && facts.not_before < SystemTime::now());
    shake(&tls, Door::Push, &client_of(&tls, &["http/1.1"])).unwrap();

    // Asked for another name, it makes another.
    let more = TlsConfig { names: names(&["talk.example"]), ..config };
    let other = Tls::open(&more, directory.path()).unwrap().unwrap();
    assert!(other.certificate().facts.as_ref().unwrap().covers("talk.example"));
    // Whoever uses the file takes it over.
    assert!(tls.reload_if_changed(Instant::now()));
    assert_eq!(tls.certificate().key.cert, other.certificate().key.cert);
}

#[test]
fn a_certificate_made_here_is_made_anew_before_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let config = TlsConfig { self_signed: true, ..TlsConfig::default() };
    let tls = Tls::open(&config, directory.path()).unwrap().unwrap();
    let first = tls.certificate();
    let end = first.facts.as_ref().unwrap().not_after;
    let day = Duration::from_secs(86_400);
    let now = Instant::now();
    assert!(!tls.reload_if_changed_at(now, end - 31 * day));
    assert!(tls.reload_if_changed_at(now + LOOK_EVERY, end - 29 * day));
    let second = tls.certificate();
    assert!(second.facts.as_ref().unwrap().not_after > end + 300 * day);
    assert!(!tls.reload_if_changed_at(now + 2 * LOOK_EVERY, end - 29 * day));
}

#[test]
fn a_new_certificate_is_taken_over_and_a_bad_one_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let config = write(directory.path(), "one.example");
    let tls = Tls::open(&config, directory.path()).unwrap().unwrap();
    let (certificate, key) = (config.certificate.unwrap(), config.key.unwrap());
    let mut now = Instant::now();
    let mut look = || {
        now += LOOK_EVERY;
        tls.reload_if_changed(now)
    };
    let shown = || tls.certificate().facts.clone().unwrap().names;
    assert!(!look());

    // The certificate alone: it does not fit the key.
    let first = fs::read(&key).unwrap();
    let second = OwnCertificate::make(&names(&["two.example"]), SystemTime::now()).unwrap();
    fs::write(&certificate, second.pem()).unwrap();
    assert!(!look());
    assert_eq!(shown(), ["one.example"]);
    // The key follows, and both fit.
    fs::write(&key, second.pem()).unwrap();
    assert!(look());
    assert_eq!(shown(), ["two.example"]);
    assert!(!look());

    for spoil in [
        &b"no PEM at all"[..],
        b"",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        &first,
    ] {
        fs::write(&certificate, spoil).unwrap();
        assert!(!look());
        assert_eq!(shown(), ["two.example"]);
    }
    fs::remove_file(&certificate).unwrap();
    assert!(!look());
    fs::write(&certificate, &first).unwrap();
    fs::write(&key, &first).unwrap();
    assert!(look());
    assert_eq!(shown(), ["one.example"]);

    // Not more than once a second, however often it is asked.
    fs::write(&certificate, second.pem()).unwrap();
    fs::write(&key, second.pem()).unwrap();
    let now = now + LOOK_EVERY;
    assert!(tls.reload_if_changed(now));
    fs::write(&certificate, &first).unwrap();
    fs::write(&key, &first).unwrap();
    assert!(!tls.reload_if_changed(now + LOOK_EVERY / 2));
    assert!(tls.reload_if_changed(now + LOOK_EVERY));
}

#[test]
fn what_cannot_be_read_is_tried_again() {
    let directory = tempfile::tempdir().unwrap();
    let config = write(directory.path(), "one.example");
    let tls = Tls::open(&config, directory.path()).unwrap().unwrap();
    let begun = Instant::now();
    let mut seconds = 0;
    let mut look = || {
        seconds += 1;
        tls.reload_if_changed(begun + seconds * LOOK_EVERY)
    };
    let done = || tls.watch.lock().unwrap().certificate.done;
    let shown = || tls.certificate().facts.clone().unwrap().names;
    let first = done();
    let certificate = config.certificate.as_deref().unwrap();

    // A directory cannot be read, whoever asks.
    let aside = directory.path().join("aside.pem");
    fs::rename(certificate, &aside).unwrap();
    fs::create_dir(certificate).unwrap();
    for _ in 0..3 {
        assert!(!look());
        assert_eq!(done(), first, "not done with");
    }
    fs::remove_dir(certificate).unwrap();
    let second = OwnCertificate::make(&names(&["two.example"]), SystemTime::now()).unwrap();
    fs::write(&aside, second.pem()).unwrap();
    fs::write(config.key.as_ref().unwrap(), second.pem()).unwrap();
    fs::rename(&aside, certificate).unwrap();
    assert!(look());
    assert_eq!(shown(), ["two.example"]);

    // What was read and is of no use is not read again.
    fs::write(certificate, "no PEM at all").unwrap();
    let second = done();
    assert!(!look());
    assert_ne!(done(), second);
    assert_eq!(done()[0], FileStamp::of(certificate));

    // So it is with the keys of tickets.
    let done = || tls.watch.lock().unwrap().tickets.done;
    let first = done();
    let tickets = directory.path().join("keys/tickets");
    fs::rename(&tickets, &aside).unwrap();
    fs::create_dir(&tickets).unwrap();
    fs::set_permissions(&tickets, fs::Permissions::from_mode(0o700)).unwrap();
    for _ in 0..3 {
        assert!(!look());
        assert_eq!(done(), first, "not done with");
    }
    fs::remove_dir(&tickets).unwrap();
    fs::rename(&aside, &tickets).unwrap();
    let keys = Keys::open(&directory.path().join("keys")).unwrap();
    keys.rotate_tickets().unwrap();
    assert!(look());
    assert_eq!(done(), FileStamp::of(&tickets));
}

#[test]
fn a_change_of_owner_or_mode_is_one_of_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("key.pem");
    fs::write(&file, "a key").unwrap();
    let before = SystemTime::now() - Duration::from_secs(3_600);
    fs::File::options().write(true).open(&file).unwrap().set_modified(before).unwrap();
    let first = FileStamp::of(&file).unwrap();
    // The clock of files is coarser than ours: until its next tick two changes are one.
    let changed = || {
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        FileStamp::of(&file).unwrap()
    };
    let second = std::iter::repeat_with(changed).find(|stamp| *stamp != first).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), before);
    assert_ne!(first, second);
}

#[test]
fn the_same_complaint_is_written_once() {
    let mut seen = Seen::new(0);
    assert!(seen.is_news("no key".to_owned()));
    assert!(!seen.is_news("no key".to_owned()));
    assert!(seen.is_news("no certificate".to_owned()));
    seen.taken(1);
    assert!(seen.is_news("no certificate".to_owned()), "another one, later");
}

#[test]
fn a_certificate_that_ends_soon_is_spoken_of_every_day() {
    let directory = tempfile::tempdir().unwrap();
    let config = write(directory.path(), "one.example");
    let tls = Tls::open(&config, directory.path()).unwrap().unwrap();
    let certificate = tls.certificate();
    let end = certificate.facts.as_ref().unwrap().not_after;
    let since = end.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(tls.certificate_expires_s(), Some(since.as_secs()));
    let mut watch = tls.watch.lock().unwrap();
    let (begun, day) = (watch.said, REMIND_EVERY);
    assert!(!watch.reminds(&certificate, begun + day, end - 15 * day), "far from its end");
    assert!(!watch.reminds(&certificate, begun + day / 2, end - 13 * day), "it was just said");
    assert!(watch.reminds(&certificate, begun + 3 * day, end - 12 * day));
    assert!(!watch.reminds(&certificate, begun + 4 * day - LOOK_EVERY, end - 11 * day));
    assert!(watch.reminds(&certificate, begun + 4 * day, end - 11 * day));
    assert!(watch.reminds(&certificate, begun + 20 * day, end + 5 * day), "expired");
}

#[test]
fn a_name_is_the_same_however_it_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let config = TlsConfig {
        self_signed: true,
        names: names(&["2001:DB8:0:0::7", "0:0:0:0:0:0:0:1", "Talk.Example"]),
        ..TlsConfig::default()
    };
    let open = || Tls::open(&config, directory.path()).unwrap().unwrap().certificate();
    let first = open();
    let facts = first.facts.as_ref().unwrap();
    for host in ["2001:db8::7", "[2001:DB8:0::7]", "::1", "talk.example"] {
        assert!(facts.covers(host), "{host} {facts:?}");
    }
    assert_eq!(facts.names.iter().filter(|name| *name == "::1").count(), 1);
    assert_eq!(open().key.cert, first.key.cert, "made once");
}

#[test]
fn a_certificate_made_here_is_seen_as_of_before_it_was_read() {
    let directory = tempfile::tempdir().unwrap();
    let config = TlsConfig { self_signed: true, ..TlsConfig::default() };
    fs::create_dir(directory.path().join("keys")).unwrap();
    let file = directory.path().join("keys/tls.pem");
    // Somebody else replaces the file while ours looks at what it has read.
    let names = names(&["localhost"]);
    let (now, long_ago) = (SystemTime::now(), SystemTime::now() - 390 * REMIND_EVERY);
    let first = OwnCertificate::make(&names, now).unwrap();
    let second = OwnCertificate::make(&names, now - LOOK_EVERY).unwrap();
    fs::write(&file, first.pem()).unwrap();
    let replace = |_: &Certificate| {
        freeze::write_bytes(&file, second.pem().as_bytes(), true).unwrap();
        true
    };
    let (read, stamp) = own::load_or_make(&file, &names, now, replace).unwrap();
    assert_eq!(read.key.cert[0], first.certificate);
    assert_ne!(stamp, FileStamp::of(&file), "it is read again");

    // One that is there but cannot be read is nobody's to replace.
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    let error = Tls::open(&config, directory.path()).unwrap_err();
    assert!(matches!(error, TlsError::Certificate(CertificateError::Io { .. })), "{error}");
    // One that ended long ago is.
    fs::remove_dir(&file).unwrap();
    fs::write(&file, OwnCertificate::make(&names, long_ago).unwrap().pem()).unwrap();
    let tls = Tls::open(&config, directory.path()).unwrap().unwrap();
    assert_eq!(tls.watch.lock().unwrap().certificate.done, [FileStamp::of(&file), None]);
}

#[test]
fn what_cannot_be_used_says_what_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = write(directory.path(), "one.example");
    let certificate = config.certificate.clone().unwrap();
    let open = |config: &TlsConfig| Tls::open(config, directory.path()).unwrap_err().to_string();
    let other = OwnCertificate::make(&names(&["two.example"]), SystemTime::now()).unwrap();
    fs::write(&certificate, other.pem()).unwrap();
    assert!(open(&config).contains("cannot be used with the key"), "{}", open(&config));
    fs::write(&certificate, "nothing").unwrap();
    assert!(open(&config).contains("holds no certificate"), "{}", open(&config));
    fs::write(&certificate, other.pem()).unwrap();
    fs::write(config.key.as_ref().unwrap(), "nothing").unwrap();
    assert!(open(&config).contains("holds no private key"), "{}", open(&config));
    config.key = Some(directory.path().join("nowhere.pem"));
    assert!(open(&config).contains("nowhere.pem"), "{}", open(&config));
}

#[test]
fn doors_agree_on_what_they_speak() {
    let directory = tempfile::tempdir().unwrap();
    let config = TlsConfig { self_signed: true, ..TlsConfig::default() };
    let tls = Tls::open(&config, directory.path()).unwrap().unwrap();
    let both = client_of(&tls, &["h2", "http/1.1"]);
    for (door, protocol) in [(Door::Push, "http/1.1"), (Door::Http1, "http/1.1"), (Door::Http2, "h2")] {
        let (_, agreed) = shake(&tls, door, &both).unwrap();
        assert_eq!(agreed.as_deref(), Some(protocol.as_bytes()), "{door:?}");
    }
    let only = client_of(&tls, &["h2"]);
    assert_eq!(shake(&tls, Door::Push, &only), Err(rustls::Error::NoApplicationProtocol));
    // Whoever asks for no protocol gets HTTP/1.1 by default.
    assert_eq!(shake(&tls, Door::Push, &client_of(&tls, &[])).unwrap().1, None);
}

#[test]
fn sessions_are_taken_up_by_every_process_of_a_deployment() {
    let directory = tempfile::tempdir().unwrap();
    let config = TlsConfig { self_signed: true, ..TlsConfig::default() };
    let open = || Tls::open(&config, directory.path()).unwrap().unwrap();
    let keys = Keys::open(&directory.path().join("keys")).unwrap();
    for door in [Door::Push, Door::Http1, Door::Http2] {
        let (first, second) = (open(), open());
        let client = client_of(&first, &["http/1.1"]);
        let kind = |tls: &Tls| shake(tls, door, &client).unwrap().0;
        assert_eq!(kind(&first), HandshakeKind::Full);
        assert_eq!(kind(&second), HandshakeKind::Resumed);
        assert_eq!(kind(&first), HandshakeKind::Resumed);

        // The key before is still understood; whoever has not looked yet makes tickets that the others understand.
        keys.rotate_tickets().unwrap();
        assert!(second.reload_if_changed(Instant::now()));
        assert_eq!(kind(&second), HandshakeKind::Resumed);
        // `first` does not know the new key yet: a full handshake, no error.
        assert_eq!(kind(&first), HandshakeKind::Full);
        assert_eq!(kind(&second), HandshakeKind::Resumed);
        assert!(first.reload_if_changed(Instant::now()));
        assert_eq!(kind(&first), HandshakeKind::Resumed);

        // Two rotations later nobody knows it any more.
        keys.rotate_tickets().unwrap();
        keys.rotate_tickets().unwrap();
        assert!(first.reload_if_changed(Instant::now() + LOOK_EVERY));
        assert_eq!(kind(&first), HandshakeKind::Full);
        assert_eq!(kind(&first), HandshakeKind::Resumed);
    }

    // Another deployment's are of no use here, nor those of another kind of door.
    let elsewhere = tempfile::tempdir().unwrap();
    fs::create_dir(elsewhere.path().join("keys")).unwrap();
    fs::copy(directory.path().join("keys/tls.pem"), elsewhere.path().join("keys/tls.pem")).unwrap();
    let other = Tls::open(&config, elsewhere.path()).unwrap().unwrap();
    let client = client_of(&other, &["http/1.1"]);
    assert_eq!(shake(&other, Door::Push, &client).unwrap().0, HandshakeKind::Full);
    assert_eq!(shake(&open(), Door::Push, &client).unwrap().0, HandshakeKind::Full);
    assert_eq!(shake(&open(), Door::Http1, &client).unwrap().0, HandshakeKind::Full);
}

#[test]
fn a_ticket_that_is_none_is_understood_by_nobody() {
    let key = |id| TicketKey { id, secret: [id; 32] };
    let keys = TicketKeys { current: key(2), previous: Some(key(1)) };
    let tickets = Tickets::new("push", &keys);
    let good = tickets.encrypt(b"a session").unwrap();
    assert_eq!(tickets.decrypt(&good).unwrap(), b"a session");
    assert_ne!(tickets.encrypt(b"a session").unwrap(), good, "no two are alike");
    for at in 0..good.len() {
        let mut forged = good.clone();
        forged[at] ^= 1;
        assert_eq!(tickets.decrypt(&forged), None, "byte {at}");
        assert_eq!(tickets.decrypt(&good[..at]), None, "{at} bytes");
    }
    assert_eq!(tickets.decrypt(&[&good[..], &[0; 2_000]].concat()), None);
    assert_eq!(tickets.encrypt(&[0; 2_000]), None, "longer than what is looked into");

    let previous = Tickets::new("push", &TicketKeys { current: key(1), previous: None });
    let old = previous.encrypt(b"an older session").unwrap();
    assert_eq!(tickets.decrypt(&old).unwrap(), b"an older session");
    assert_eq!(previous.decrypt(&good), None);
    tickets.set(&TicketKeys { current: key(3), previous: Some(key(2)) });
    assert_eq!((tickets.decrypt(&old), tickets.decrypt(&good)), (None, Some(b"a session".to_vec())));

    let same = TicketKeys { current: key(2), previous: None };
    assert_eq!(Tickets::new("http", &same).decrypt(&good), None);
    // The same number, another secret: after somebody removed the file.
    let other = TicketKeys { current: TicketKey { id: 2, secret: [9; 32] }, previous: None };
    assert_eq!(Tickets::new("push", &other).decrypt(&good), None);
    assert!(!format!("{tickets:?}").contains("key"), "{tickets:?}");
}

#[test]
fn names_are_compared_as_clients_compare_them() {
    let made = OwnCertificate::make(
        &names(&["talk.example", "*.edge.example", "192.0.2.1", "2001:db8::1"]),
        SystemTime::now(),
    );
    let facts = Facts::of(&CertificateDer::from_pem_slice(made.unwrap().pem().as_bytes()).unwrap()).unwrap();
    for (host, covered) in [
        ("talk.example", true),
        ("TALK.example", true),
        ("a.edge.example", true),
        ("edge.example", false),
        ("a.b.edge.example", false),
        ("a.talk.example", false),
        ("192.0.2.1", true),
        ("192.0.2.2", false),
        ("[2001:db8::1]", true),
        ("", false),
    ] {
        assert_eq!(facts.covers(host), covered, "{host}");
    }
    assert_eq!(Facts::of(b"no certificate"), None);
}
