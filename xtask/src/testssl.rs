//! The TLS of every door, graded by `testssl.sh`: nothing that it finds may be worse than informational, and what is
//! offered is TLS 1.3 alone at the push door, elsewhere 1.2 with AEAD beside it.

use std::fs::{self, File};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::install;
use crate::run::{cargo, root, run};

/// Each door, and whether it speaks TLS 1.2 too.
const DOORS: [(&str, bool); 4] = [("push", false), ("files", true), ("control", true), ("stage", true)];
/// Protocols that no door offers, by `testssl.sh`'s names for them.
const OLD: [&str; 4] = ["SSLv2", "SSLv3", "TLS1", "TLS1_1"];
/// What is no fault of the doors: its name, how it is put, and why.
const EXPECTED: [(&str, &str, &str); 3] = [
    (
        "engine_problem",
        "No engine or GOST support",
        "the OpenSSL that asks has no GOST ciphers; nothing of the server",
    ),
    (
        "cert_chain_of_trust",
        "failed (self signed)",
        "the certificate of this run is self-made: no authority vouches for it",
    ),
    (
        "cert_revocation",
        "Neither CRL nor OCSP URI provided",
        "no authority issued it that could revoke it, so it names no place to ask",
    ),
];
/// A whole scan finds well over this many things.
const FINDINGS_MIN: usize = 100;

/// Scans of a door that does not get through one.
const SCANS_MAX: u32 = 3;

/// One line of `testssl.sh`'s report.
struct Finding {
    id: String,
    severity: String,
    text: String,
}

impl Finding {
    fn is_harmless(&self) -> bool {
        matches!(self.severity.as_str(), "OK" | "INFO")
    }

    fn excuse(&self) -> Option<&'static str> {
        let is_it = |(id, text, _): &&(&str, &str, &str)| self.id == *id && self.text.starts_with(text);
        EXPECTED.iter().find(is_it).map(|(_, _, why)| *why)
    }
}

/// Builds and starts a server with a certificate of its own, has each door graded, and judges. The reports stay in
/// `target/testssl`.
///
/// # Errors
/// If something cannot be installed, built or started, or a door is graded worse than it should be.
pub(crate) fn all_doors() -> Result<()> {
    install::testssl()?;
    run(cargo().args(["build", "--package", "minassa"]))?;
    let reports = root().join("target/testssl");
    fs::create_dir_all(&reports)?;
    let server = Server::start(&reports.join("server.log"))?;
    let mut faults = Vec::new();
    for (door, speaks_1_2) in DOORS {
        let findings = scan_patiently(&server.address(door)?, &reports.join(door))?;
        let found = judge(door, speaks_1_2, &findings);
        eprintln!();
        faults.extend(found.into_iter().map(|fault| format!("{door}: {fault}")));
    }
    drop(server);
    if faults.is_empty() {
        eprintln!("nothing worse than informational at {} doors", DOORS.len());
        return Ok(());
    }
    bail!("{} faults:\n{}", faults.len(), faults.join("\n"))
}

/// Scans, and again if one of the scan's own connections failed: it asks for a session to resume and hangs up at once,
/// so on a busy machine it sometimes leaves before the ticket has come, and then has none.
fn scan_patiently(address: &str, to: &Path) -> Result<Vec<Finding>> {
    for _ in 1..SCANS_MAX {
        match scan(address, to) {
            Ok(findings) => return Ok(findings),
            Err(error) => eprintln!("{error:#}: once more"),
        }
    }
    scan(address, to)
}

/// Runs `testssl.sh` against `address`; its report is in `{to}.json`, what it says in `{to}.log`.
fn scan(address: &str, to: &Path) -> Result<Vec<Finding>> {
    let json = to.with_extension("json");
    // It does not overwrite.
    let _ = fs::remove_file(&json);
    // What it says is long, and in the report; the door answers 404 to what it asks, which is HTTP all the same.
    run(Command::new("testssl")
        .args([
            "--quiet",
            "--color",
            "0",
            "--warnings",
            "off",
            "--nodns",
            "none",
            "--assume-http",
            "--jsonfile",
        ])
        .arg(&json)
        .arg(format!("https://{address}/"))
        .stdin(Stdio::null())
        .stdout(File::create(to.with_extension("log"))?))?;
    let report: Value = serde_json::from_slice(&fs::read(&json)?).context("the report cannot be read")?;
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let findings: Vec<Finding> = report
        .as_array()
        .context("the report is no list")?
        .iter()
        .map(|finding| Finding {
            id: text(finding, "id"),
            severity: text(finding, "severity"),
            text: text(finding, "finding"),
        })
        .collect();
    // The time is the last thing it writes.
    let is_whole = findings.last().is_some_and(|last| last.id == "scanTime");
    ensure!(is_whole && findings.len() >= FINDINGS_MIN, "the scan broke off: {} findings", findings.len());
    Ok(findings)
}

/// Prints what a door offers and what is noteworthy; returns what should not be.
fn judge(door: &str, speaks_1_2: bool, findings: &[Finding]) -> Vec<String> {
    let mut faults = Vec::new();
    let of = |id: &str| findings.iter().find(|finding| finding.id == id).map_or("not said", |f| &f.text);
    eprintln!("== {door}: {} findings", findings.len());
    let wanted = OLD.map(|id| (id, false)).into_iter().chain([("TLS1_2", speaks_1_2), ("TLS1_3", true)]);
    for (id, is_wanted) in wanted {
        eprintln!("  protocol  {id:<7} {}", of(id));
        let is_as_wanted =
            if is_wanted { of(id).starts_with("offered") } else { of(id).starts_with("not offered") };
        if !is_as_wanted {
            faults.push(format!("{id} is {:?}", of(id)));
        }
    }
    // x1302   TLS_AES_256_GCM_SHA384   ECDH 253   AESGCM   256   TLS_AES_256_GCM_SHA384
    let ciphers = findings.iter().filter(|finding| finding.id.starts_with("cipher_x"));
    let ciphers: Vec<&str> = ciphers.filter_map(|finding| finding.text.split_whitespace().last()).collect();
    for cipher in &ciphers {
        eprintln!("  cipher    {cipher}");
        if !is_aead(cipher) {
            faults.push(format!("{cipher} is no AEAD with ephemeral keys"));
        }
    }
    if ciphers.is_empty() {
        faults.push("no cipher was found".to_owned());
    }
    for finding in findings.iter().filter(|finding| !finding.is_harmless()) {
        let Finding { id, severity, text } = finding;
        eprintln!("  {severity:<9} {id}: {text}");
        match finding.excuse() {
            Some(why) => eprintln!("            expected: {why}"),
            None => faults.push(format!("{severity} {id}: {text}")),
        }
    }
    faults
}

/// Whether a cipher suite, by its name in the RFCs, is an AEAD with a fresh key exchange: all of TLS 1.3, and what
/// ECDHE agrees on before.
fn is_aead(cipher: &str) -> bool {
    let is_sealed = ["_GCM_", "_CHACHA20_POLY1305", "_CCM"].iter().any(|part| cipher.contains(part));
    is_sealed && (!cipher.contains("_WITH_") || cipher.starts_with("TLS_ECDHE_"))
}

/// A server of its own, asked to end when dropped.
struct Server {
    child: Child,
    data: PathBuf,
}

impl Server {
    fn start(log: &Path) -> Result<Self> {
        // Not below the workspace: the paths of sockets are short.
        let data = std::env::temp_dir().join(format!("minassa-testssl-{}", std::process::id()));
        let free = "127.0.0.1:0";
        let doors = ["--listen", "--push-listen", "--stage-listen", "--files-listen"];
        let child = Command::new(root().join("target/debug/minassa"))
            .args(["serve", "--edges", "1", "--data"])
            .arg(&data)
            .args(doors.into_iter().flat_map(|door| [door, free]))
            .envs([("MINASSA_TLS_SELF_SIGNED", "true"), ("MINASSA_TLS_HSTS_S", "15552000")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(log)?)
            .spawn()
            .context("the server does not start")?;
        let mut server = Self { child, data };
        for _ in 0..600 {
            if let Some(status) = server.child.try_wait()? {
                bail!("the server ended with {status}: see {}", log.display());
            }
            let answers =
                |door: &str| server.address(door).is_ok_and(|address| TcpStream::connect(address).is_ok());
            if DOORS.iter().all(|(door, _)| answers(door)) {
                return Ok(server);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        bail!("the server is not up after a minute: see {}", log.display())
    }

    /// `host:port` of a door.
    fn address(&self, door: &str) -> Result<String> {
        let text = fs::read_to_string(self.data.join("run/addresses.json"))?;
        let addresses: Value = serde_json::from_str(&text)?;
        Ok(addresses[door].as_str().with_context(|| format!("no door {door}"))?.to_owned())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Properly, so that its children end as well; it takes some seconds at the most.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.data);
    }
}
