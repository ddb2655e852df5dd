//! The push door's TLS against another implementation: OpenSSL's `s_client`, over loopback.

use std::io::{BufRead as _, BufReader, PipeReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use backend::tls::{Door, Tls, TlsConfig};
use minassa_edge::seal::{Handshake, Opened, Progress, Session, TlsError};

/// Nothing takes this long unless it is broken.
const NEVER: Duration = Duration::from_secs(30);

/// What a server made of a connection.
#[derive(Debug)]
struct Served {
    resumed: bool,
    /// Everything the client said.
    heard: Vec<u8>,
    /// How often something of the protocol itself was to be answered.
    replies: usize,
    /// Whether the client ended it properly.
    closed: bool,
}

/// Serves one connection: answers each line with the same line between brackets, as one record, and `N` with that many
/// bytes. Takes a new key every `key_records` records. An empty line ends it.
fn serve_one(listener: TcpListener, tls: Arc<Tls>, key_records: u64) -> JoinHandle<Result<Served, TlsError>> {
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        stream.set_read_timeout(Some(NEVER)).expect("a timeout");
        let mut handshake = Handshake::new(tls.config(Door::Push))?;
        let (mut incoming, mut outgoing) = (Vec::new(), Vec::new());
        loop {
            let progress = handshake.advance(&mut incoming, &mut outgoing);
            send(&mut stream, &mut outgoing);
            match progress {
                Ok(Progress::Established) => break,
                Ok(Progress::NeedsMore) => {}
                Err(error) => return Err(error),
            }
            assert!(receive(&mut stream, &mut incoming), "the client gave up");
        }
        let resumed = handshake.resumed() == Some(true);
        let mut session = handshake.finish()?.with_key_records_max(key_records);
        let mut served = Served { resumed, heard: Vec::new(), replies: 0, closed: false };
        let mut answered = 0;
        loop {
            let opened = session.open(&mut incoming, &mut outgoing, &mut served.heard);
            served.replies += usize::from(!outgoing.is_empty());
            send(&mut stream, &mut outgoing);
            if opened? == Opened::Closed {
                served.closed = true;
                break;
            }
            while let Some(end) = served.heard[answered..].iter().position(|byte| *byte == b'\n') {
                let line = served.heard[answered..answered + end].to_vec();
                answered += end + 1;
                answer(&mut session, &line, &mut outgoing)?;
            }
            let ends = outgoing.is_empty() && served.heard.ends_with(b"\n\n");
            if ends {
                break;
            }
            send(&mut stream, &mut outgoing);
            if !receive(&mut stream, &mut incoming) {
                return Ok(served);
            }
        }
        session.close(&mut outgoing)?;
        send(&mut stream, &mut outgoing);
        Ok(served)
    })
}

fn answer(session: &mut Session, line: &[u8], outgoing: &mut Vec<u8>) -> Result<(), TlsError> {
    if line.is_empty() {
        return Ok(());
    }
    match std::str::from_utf8(line).ok().and_then(|line| line.parse::<usize>().ok()) {
        Some(bytes) => session.seal_gathered(&[&vec![b'x'; bytes], b"\n"], outgoing),
        None => session.seal_gathered(&[b"[", line, b"]\n"], outgoing),
    }
}

/// What the client does not take any more is of no interest.
fn send(stream: &mut TcpStream, outgoing: &mut Vec<u8>) {
    let _ = stream.write_all(outgoing);
    outgoing.clear();
}

fn receive(stream: &mut TcpStream, incoming: &mut Vec<u8>) -> bool {
    let mut buffer = [0; 4096];
    let count = stream.read(&mut buffer).unwrap_or(0);
    incoming.extend_from_slice(&buffer[..count]);
    count > 0
}

struct Server {
    address: SocketAddr,
    serving: JoinHandle<Result<Served, TlsError>>,
}

impl Server {
    /// With the keys and the certificate of `data`.
    fn start(data: &Path, key_records: u64) -> Self {
        let config = TlsConfig { self_signed: true, ..TlsConfig::default() };
        let tls = Arc::new(Tls::open(&config, data).unwrap().unwrap());
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        Self { address, serving: serve_one(listener, tls, key_records) }
    }

    fn ended(self) -> Result<Served, TlsError> {
        self.serving.join().unwrap()
    }
}

/// `openssl s_client` at work.
struct Client {
    child: Child,
    input: ChildStdin,
    /// Both its outputs: what matters is spread over them.
    output: BufReader<PipeReader>,
}

impl Client {
    fn start(address: SocketAddr, data: &Path, arguments: &[&str]) -> Self {
        let (output, both) = std::io::pipe().unwrap();
        let mut child = Command::new("openssl")
            .args(["s_client", "-connect", &address.to_string(), "-servername", "localhost"])
            .args(["-verify_return_error", "-verify_hostname", "localhost", "-CAfile"])
            .arg(data.join("keys/tls.pem"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(both.try_clone().unwrap())
            .stderr(both)
            .spawn()
            .expect("openssl is installed (cargo xtask test does that)");
        let input = child.stdin.take().unwrap();
        Self { child, input, output: BufReader::new(output) }
    }

    fn say(&mut self, line: &str) {
        self.input.write_all(line.as_bytes()).unwrap();
        self.input.flush().unwrap();
    }

    /// Reads lines until one of them is `line`; all of them.
    fn until(&mut self, line: &str) -> String {
        let mut all = String::new();
        loop {
            let mut next = String::new();
            assert_ne!(self.output.read_line(&mut next).unwrap(), 0, "it ended, having said {all}");
            all.push_str(&next);
            if next.trim_end() == line {
                return all;
            }
        }
    }

    /// Says that nothing more comes, and waits for the end: whether it was content, and what else it said.
    fn end(mut self) -> (bool, String) {
        drop(self.input);
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().success(), rest)
    }
}

/// A client that is refused: what it said.
fn refused(arguments: &[&str]) -> (TlsError, String) {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), u64::MAX);
    let client = Client::start(server.address, directory.path(), arguments);
    let (content, said) = client.end();
    assert!(!content, "{said}");
    (server.ended().unwrap_err(), said)
}

#[test]
fn every_suite_and_group_that_it_has() {
    for (suite, group) in [
        ("TLS_AES_128_GCM_SHA256", "X25519"),
        ("TLS_AES_256_GCM_SHA384", "P-256"),
        // It guesses P-384 first, and is asked for another.
        ("TLS_CHACHA20_POLY1305_SHA256", "P-384:P-256"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let server = Server::start(directory.path(), u64::MAX);
        let arguments = ["-ciphersuites", suite, "-groups", group, "-alpn", "http/1.1", "-ign_eof"];
        let mut client = Client::start(server.address, directory.path(), &arguments);
        client.say("hello\n");
        let said = client.until("[hello]");
        assert!(said.contains(&format!("New, TLSv1.3, Cipher is {suite}")), "{said}");
        assert!(said.contains("Verification: OK") && said.contains("ALPN protocol: http/1.1"), "{said}");
        // Several records, the last of them short.
        client.say("100000\n");
        client.until(&"x".repeat(100_000));
        client.say("\n");
        let (content, said) = client.end();
        assert!(content && said.contains("closed"), "{said}");
        let served = server.ended().unwrap();
        assert!(!served.resumed && !served.closed);
        assert_eq!(served.heard, b"hello\n100000\n\n");
    }
}

#[test]
fn keys_are_changed_in_both_directions() {
    for key_records in [1, 2, 1_000] {
        let directory = tempfile::tempdir().unwrap();
        let server = Server::start(directory.path(), key_records);
        let mut client = Client::start(server.address, directory.path(), &[]);
        for round in 0..8 {
            let line = format!("round {round}");
            client.say(&format!("{line}\n"));
            client.until(&format!("[{line}]"));
            // A line that begins with K updates its key and asks for an update in return, with k it does not ask.
            client.say(if round % 2 == 0 { "K\n" } else { "k\n" });
            client.until("KEYUPDATE");
            client.say("40000\n");
            client.until(&"x".repeat(40_000));
        }
        client.say("\n");
        let served = server.ended().unwrap();
        assert!(client.end().0 && !served.closed);
        assert_eq!(served.replies, 4, "one for each K");
    }
}

#[test]
fn a_session_is_taken_up_at_another_edge() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    let ticket = data.join("ticket.pem");
    let ticket = ticket.to_str().unwrap();
    let first = Server::start(data, u64::MAX);
    let mut client = Client::start(first.address, data, &["-sess_out", ticket, "-ign_eof"]);
    client.say("hello\n");
    client.until("[hello]");
    client.say("\n");
    client.end();
    assert!(!first.ended().unwrap().resumed);

    for edge in 0..2 {
        let other = Server::start(data, u64::MAX);
        let mut client = Client::start(other.address, data, &["-sess_in", ticket, "-ign_eof"]);
        client.say("again\n");
        let said = client.until("[again]");
        assert!(said.contains("Reused, TLSv1.3"), "edge {edge}: {said}");
        client.say("\n");
        client.end();
        assert!(other.ended().unwrap().resumed);
    }

    // Elsewhere it is worth nothing, and costs nothing but a full handshake.
    let elsewhere = tempfile::tempdir().unwrap();
    let other = Server::start(elsewhere.path(), u64::MAX);
    let mut client = Client::start(other.address, elsewhere.path(), &["-sess_in", ticket, "-ign_eof"]);
    client.say("again\n");
    let said = client.until("[again]");
    assert!(said.contains("New, TLSv1.3"), "{said}");
    client.say("\n");
    client.end();
    assert!(!other.ended().unwrap().resumed);
}

#[test]
fn a_client_that_ends_properly_is_understood() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), u64::MAX);
    let mut client = Client::start(server.address, directory.path(), &[]);
    client.say("hello\n");
    client.until("[hello]");
    client.say("Q\n");
    assert!(client.end().0);
    assert!(server.ended().unwrap().closed);
}

#[test]
fn who_has_nothing_in_common_with_us_gets_an_alert() {
    let (error, said) = refused(&["-tls1_2"]);
    assert!(matches!(error, TlsError::Handshake(_)), "{error}");
    assert!(said.contains("alert protocol version"), "{said}");
    let (error, said) = refused(&["-alpn", "h2"]);
    assert!(matches!(error, TlsError::Handshake(_)), "{error}");
    assert!(said.contains("no application protocol"), "{said}");
    let (error, said) = refused(&["-groups", "P-521"]);
    assert!(matches!(error, TlsError::Handshake(_)), "{error}");
    assert!(said.contains("alert handshake failure"), "{said}");
}

#[test]
fn its_alert_is_heard() {
    // It does not know our certificate.
    let directory = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), u64::MAX);
    drop(Server::start(elsewhere.path(), u64::MAX));
    let client = Client::start(server.address, elsewhere.path(), &[]);
    let (content, said) = client.end();
    assert!(!content && said.contains("verify"), "{said}");
    let error = server.ended().unwrap_err();
    assert!(matches!(error, TlsError::Alert(_)), "{error}");
}
