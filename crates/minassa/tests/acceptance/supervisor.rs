//! The supervisor with real processes: what dies is replaced, what hangs is killed, nothing is left behind.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use acceptance::server::{Server, alive};
use acceptance::wait_for;
use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_minassa");
const PATIENCE: Duration = Duration::from_secs(60);

fn addresses(server: &Server) -> Result<Value> {
    Ok(serde_json::from_str(&std::fs::read_to_string(server.data().join("run/addresses.json"))?)?)
}

fn log(server: &Server) -> Result<String> {
    Ok(std::fs::read_to_string(server.data().with_extension("log"))?)
}

fn wait_ready(server: &Server, door: &str) -> Result<()> {
    let url = format!("http://{}/readyz", server.door(door)?);
    wait_for(&url, PATIENCE, || Ok(ureq::get(&url).call().ok().map(drop)))
}

/// Everything that runs for a server.
fn pids(server: &Server) -> Result<Vec<u32>> {
    ["supervisor", "origin", "control", "edge-0", "edge-1"].iter().map(|role| server.pid(role)).collect()
}

/// Runs `serve` where it cannot start.
fn serve(arguments: &[&str], data: &Path) -> Result<Output> {
    let free = ["--listen", "--push-listen", "--stage-listen", "--files-listen"]
        .into_iter()
        .filter(|flag| !arguments.contains(flag))
        .flat_map(|flag| [flag, "127.0.0.1:0"]);
    Ok(Command::new(BINARY)
        .arg("serve")
        .args(free)
        .args(arguments)
        .arg("--data")
        .arg(data)
        .stdin(Stdio::null())
        .output()?)
}

#[track_caller]
fn assert_refused(output: &Output, expected: &[&str]) {
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    for part in expected {
        assert!(message.contains(part), "{message:?} lacks {part:?}");
    }
}

#[test]
fn what_dies_is_replaced_and_counted() -> Result<()> {
    let server = Server::start(BINARY, 2)?;
    for role in ["edge-1", "control", "origin"] {
        let before = server.kill(role)?;
        server.wait_replaced(role, before, PATIENCE)?;
    }
    for door in ["control", "stage"] {
        wait_ready(&server, door)?;
    }
    let restarts = &addresses(&server)?["restarts"];
    assert_eq!(*restarts, serde_json::json!({"origin": 1, "control": 1, "edges": [0, 1]}));
    assert!(log(&server)?.contains("a role is gone and is started again role=edge-1"));
    Ok(())
}

#[test]
fn what_hangs_is_killed_and_replaced() -> Result<()> {
    let server = Server::start(BINARY, 1)?;
    let before = server.signal("control", Signal::STOP)?;
    server.wait_replaced("control", before, PATIENCE)?;
    wait_ready(&server, "control")?;
    assert!(!alive(before));
    assert!(log(&server)?.contains("no sign of life"));
    Ok(())
}

#[test]
fn nothing_outlives_the_supervisor_and_the_next_start_resumes() -> Result<()> {
    let mut server = Server::start(BINARY, 2)?;
    let event = server.create_event(3_600.0, &[])?;
    let pids = pids(&server)?;
    server.kill("supervisor")?;
    for pid in pids {
        wait_for("every child to be gone", PATIENCE, || Ok((!alive(pid)).then_some(())))?;
    }
    // The same ports and the same directory, at once.
    server.restart()?;
    let listed: Value = serde_json::from_str(&server.command(&["event", "list", "--json"])?)?;
    assert!(listed.to_string().contains(&event.event), "{listed}");
    Ok(())
}

#[test]
fn it_stops_in_order() -> Result<()> {
    let server = Server::start(BINARY, 2)?;
    let pids = pids(&server)?;
    server.signal("supervisor", Signal::TERM)?;
    for pid in &pids {
        wait_for("everything to stop", PATIENCE, || Ok((!alive(*pid)).then_some(())))?;
    }
    let log = log(&server)?;
    let at = |role: &str| {
        let line = format!("minassa::supervisor: stopped role={role} ");
        log.find(&line).with_context(|| format!("{line:?} is not in the log:\n{log}"))
    };
    let (control, origin, edges) = (at("control")?, at("origin")?, [at("edge-0")?, at("edge-1")?]);
    assert!(control < origin && edges.iter().all(|edge| origin < *edge), "{log}");
    assert!(!log.contains("killing"), "{log}");
    assert!(!server.data().join("run/addresses.json").exists());
    Ok(())
}

#[test]
fn the_stage_goes_on_without_control() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let data = directory.path().join("data");
    std::fs::create_dir_all(&data)?;
    // Control cannot open this, however often it tries.
    std::fs::write(data.join("minassa.db"), [b'x'; 8_192])?;
    let mut child = Command::new(BINARY)
        .args(["serve", "--listen", "127.0.0.1:0", "--push-listen", "127.0.0.1:0", "--stage-listen"])
        .args(["127.0.0.1:0", "--files-listen", "127.0.0.1:0", "--edges", "1", "--data"])
        .arg(&data)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let checked = (|| {
        let path = data.join("run/addresses.json");
        let addresses: Value = wait_for("the addresses", PATIENCE, || {
            Ok(std::fs::read_to_string(&path).ok().map(|text| serde_json::from_str(&text)).transpose()?)
        })?;
        let url = format!("http://{}/readyz", addresses["stage"].as_str().context("no stage")?);
        wait_for("origin", PATIENCE, || Ok(ureq::get(&url).call().ok().map(drop)))
    })();
    child.kill()?;
    child.wait()?;
    checked
}

#[test]
fn a_port_in_use_is_named() -> Result<()> {
    let other = TcpListener::bind("127.0.0.1:0")?;
    let address = other.local_addr()?.to_string();
    for flag in ["--listen", "--push-listen", "--stage-listen", "--files-listen"] {
        let directory = tempfile::tempdir()?;
        let output = serve(&[flag, &address], directory.path())?;
        assert_refused(&output, &[&address, flag, "in use"]);
        assert!(!directory.path().join("run/addresses.json").exists());
    }
    Ok(())
}

#[test]
fn a_directory_that_cannot_be_written_is_named() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("file");
    std::fs::write(&file, "no directory")?;
    assert_refused(&serve(&[], &file.join("data"))?, &["file/data", "--data"]);
    // A file system that nobody may write to, whoever runs the tests.
    assert_refused(&serve(&[], Path::new("/proc/minassa"))?, &["/proc/minassa", "--data"]);
    Ok(())
}

#[test]
fn a_read_only_directory_is_named() -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir()?;
    let data = directory.path().join("data");
    std::fs::create_dir_all(data.join("run/bus"))?;
    for path in [&data.join("run/bus"), &data.join("run"), &data] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o555))?;
    }
    // Root may write wherever it likes; then there is nothing to see here.
    if std::fs::write(data.join("run/x"), b"x").is_err() {
        assert_refused(&serve(&[], &data)?, &["cannot write to the data directory", "--data"]);
    }
    for path in [&data, &data.join("run"), &data.join("run/bus")] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

#[test]
fn a_second_server_is_told_who_has_the_directory() -> Result<()> {
    let server = Server::start(BINARY, 1)?;
    let output = serve(&[], server.data())?;
    let holder = format!("process {}", server.pid("supervisor")?);
    assert_refused(&output, &["is in use by", &holder, "--data"]);
    // The first one has noticed nothing.
    wait_ready(&server, "control")?;
    ensure!(addresses(&server)?["pids"]["supervisor"] == server.pid("supervisor")?);
    Ok(())
}
