//! TLS doors over real sockets. Limits of time are real and short; what is awaited is their effect.

use std::path::Path;

use axum::Router;
use axum::extract::Extension;
use axum::routing::get;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::tls::{Door, HandshakeCounts, OwnCertificate, Tls, TlsConfig, provider};

struct Https {
    address: SocketAddr,
    tls: Arc<Tls>,
    shutdown: CancellationToken,
    serving: tokio::task::JoinHandle<()>,
    directory: tempfile::TempDir,
}

fn open(door: Door, limits: Limits) -> Https {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), "localhost");
    let file = |name: &str| Some(directory.path().join(name));
    let config =
        TlsConfig { certificate: file("tls.pem"), key: file("tls.pem"), hsts_s: 600, ..TlsConfig::default() };
    let tls = Arc::new(Tls::open(&config, directory.path()).unwrap().unwrap());
    let router = Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/client", get(|Extension(Client(ja4)): Extension<Client>| async move { ja4.to_string() }))
        .route("/large", get(|| async { vec![b'x'; 32 * 1024 * 1024] }));
    let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0)), false).unwrap();
    let listener = TcpListener::from_std(listener).unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let limits = Limits { http2: door == Door::Http2, ..limits };
    let door = TlsDoor::new(&tls, door);
    let serving = tokio::spawn(serve(listener, router, limits, Some(door), shutdown.clone()));
    Https { address, tls, shutdown, serving, directory }
}

fn write(directory: &Path, name: &str) {
    let made = OwnCertificate::make(&[name.to_owned()], std::time::SystemTime::now()).unwrap();
    std::fs::write(directory.join("tls.pem"), made.pem()).unwrap();
}

impl Https {
    fn client(&self, protocols: &[&str]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.tls.certificate().key.cert[0].clone()).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    async fn connect(&self, name: &'static str, protocols: &[&str]) -> io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from(name).unwrap();
        TlsConnector::from(self.client(protocols)).connect(name, stream).await
    }

    fn counts(&self) -> HandshakeCounts {
        self.tls.handshakes().counts()
    }
}

async fn get_root(stream: &mut TlsStream<TcpStream>) -> String {
    get_from(stream, "/").await
}

async fn get_from(stream: &mut TlsStream<TcpStream>, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = [0; 1024];
    let count = stream.read(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer[..count]).into_owned()
}

/// Reads to the end of a connection without TLS, which may be a reset.
async fn rest(mut stream: TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    answer
}

#[tokio::test]
async fn requests_are_answered_over_tls() {
    for door in [Door::Http1, Door::Http2] {
        let https = open(door, Limits::default());
        let mut stream = https.connect("localhost", &["http/1.1"]).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        let answer = get_root(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("hello"), "{answer}");
        assert!(answer.contains("\r\nstrict-transport-security: max-age=600\r\n"), "{answer}");
        drop(stream);
        let mut stream = https.connect("localhost", &[]).await.unwrap();
        assert!(get_root(&mut stream).await.ends_with("hello"));
        assert_eq!(https.counts().full, 2);
    }
}

#[tokio::test]
async fn a_request_knows_the_fingerprint_of_its_client() {
    let https = open(Door::Http2, Limits::default());
    let mut found = Vec::new();
    for protocols in [&["http/1.1"][..], &["http/1.1"], &[]] {
        let mut stream = https.connect("localhost", protocols).await.unwrap();
        let answer = get_from(&mut stream, "/client").await;
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        found.push(body.to_owned());
    }
    // rustls shuffles its extensions, as browsers do, and names the server.
    assert_eq!(found[0], found[1]);
    assert!(found[0].starts_with("t13d") && found[0][8..10] == *"h1", "{}", found[0]);
    assert!(found[2].starts_with("t13d") && found[2][8..10] == *"00", "{}", found[2]);
}

#[tokio::test]
async fn http_2_is_agreed_on_where_it_is_spoken() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let https = open(Door::Http2, Limits::default());
    let mut stream = https.connect("localhost", &["h2", "http/1.1"]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    stream.write_all(PREFACE).await.unwrap();
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(head[3], 4, "SETTINGS");

    let https = open(Door::Http1, Limits::default());
    let stream = https.connect("localhost", &["h2", "http/1.1"]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    assert!(https.connect("localhost", &["h2"]).await.is_err());
    assert_eq!(https.counts().failed, 1);
}

#[tokio::test]
async fn who_speaks_plain_http_is_told_so() {
    let https = open(Door::Http2, Limits::default());
    for request in ["GET / HTTP/1.1\r\nHost: a\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "S"] {
        let mut stream = TcpStream::connect(https.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = String::from_utf8(rest(stream).await).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
        assert!(answer.contains("urn:minassa:problem:tls-required"), "{answer}");
    }
    assert_eq!(https.counts().plain, 3);
}

#[tokio::test]
async fn a_slow_handshake_and_what_is_none_are_cut() {
    let limits = Limits { handshake_timeout: Duration::from_millis(100), ..Limits::default() };
    let https = open(Door::Http2, limits);
    // Says nothing, or the beginning of a record, and waits.
    for bytes in [&b""[..], &[22], &[22, 3, 1, 0, 100, 1, 0]] {
        let mut stream = TcpStream::connect(https.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        assert_eq!(rest(stream).await, b"");
    }
    assert_eq!(https.counts().timed_out, 3);
    // What cannot be a handshake gets its alert, before its time is over.
    let https = open(Door::Http2, Limits::default());
    let mut stream = TcpStream::connect(https.address).await.unwrap();
    // rustls has one for what cannot be read, and none for a message that has no business there.
    stream.write_all(&[22, 3, 1, 0, 5, 1, 0, 0, 1, 0]).await.unwrap();
    assert_eq!(rest(stream).await[..3], [21, 3, 3]);
    assert_eq!(https.counts().failed, 1);
}

/// Handshakes are calculated one at a time; whoever does not go on with one takes nobody's turn.
#[tokio::test]
async fn a_handshake_left_lying_keeps_nobody_waiting() {
    let https = open(Door::Http2, Limits::default());
    let mut left = Vec::new();
    for _ in 0..20 {
        let name = ServerName::try_from("localhost").unwrap();
        let mut client = rustls::ClientConnection::new(https.client(&[]), name).unwrap();
        let mut hello = Vec::new();
        client.write_tls(&mut hello).unwrap();
        for part in [&hello[..hello.len() / 2], &hello] {
            let mut stream = TcpStream::connect(https.address).await.unwrap();
            stream.write_all(part).await.unwrap();
            left.push(stream);
        }
        // The second has its answer, and says no more.
        let mut first = [0; 1];
        left.last_mut().unwrap().read_exact(&mut first).await.unwrap();
        assert_eq!(first, [22]);
    }
    let mut stream = https.connect("localhost", &[]).await.unwrap();
    assert!(get_root(&mut stream).await.ends_with("hello"));
    assert_eq!(https.counts(), HandshakeCounts { full: 1, ..HandshakeCounts::default() });
}

#[tokio::test]
async fn the_same_limits_hold_over_tls() {
    let short = Duration::from_millis(100);
    let limits =
        Limits { connections_max: 1, header_timeout: short, write_timeout: short, ..Limits::default() };
    let https = open(Door::Http1, limits);
    // The only place is held until the head of a request is overdue; the next one waits for it.
    let mut holder = https.connect("localhost", &[]).await.unwrap();
    let mut next = https.connect("localhost", &[]).await.unwrap();
    let answer = get_root(&mut next).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert_eq!(holder.read(&mut [0; 1]).await.unwrap_or(0), 0);

    // Who reads nothing loses the connection: only so can the door drain.
    drop(next);
    let mut deaf = https.connect("localhost", &[]).await.unwrap();
    deaf.write_all(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    https.shutdown.cancel();
    https.serving.await.unwrap();
    let mut answer = Vec::new();
    let _ = deaf.read_to_end(&mut answer).await;
    assert!(answer.len() < 32 * 1024 * 1024);
}

#[tokio::test]
async fn a_new_certificate_disturbs_nobody() {
    let https = open(Door::Http1, Limits::default());
    let mut old = https.connect("localhost", &[]).await.unwrap();
    assert!(get_root(&mut old).await.contains("200 OK"));
    let mut now = std::time::Instant::now();
    let mut reload = || {
        now += Duration::from_secs(1);
        https.tls.reload_if_changed(now)
    };
    write(https.directory.path(), "talk.example");
    assert!(reload());
    // New handshakes show the new one.
    assert!(https.connect("localhost", &[]).await.is_err());
    https.connect("talk.example", &[]).await.unwrap();
    // A broken file changes nothing.
    std::fs::write(https.directory.path().join("tls.pem"), "broken").unwrap();
    assert!(!reload());
    https.connect("talk.example", &[]).await.unwrap();
    // Whoever was there before goes on.
    assert!(get_root(&mut old).await.contains("200 OK"));
}

#[tokio::test]
async fn a_shutdown_waits_for_no_handshake() {
    let https = open(Door::Http1, Limits::default());
    let stream = TcpStream::connect(https.address).await.unwrap();
    let mut busy = https.connect("localhost", &[]).await.unwrap();
    assert!(get_root(&mut busy).await.contains("200 OK"));
    https.shutdown.cancel();
    https.serving.await.unwrap();
    assert_eq!(rest(stream).await, b"");
    // With a proper end.
    assert_eq!(busy.read(&mut [0; 1]).await.unwrap(), 0);
}
