//! Bad input of every kind, each with its proper answer, while a show is on air that loses nothing: must hold 13.

mod exchange;
mod inputs;
mod listeners;
mod operators;
mod show;
mod stage_door;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use acceptance::server::{Server, alive};
use acceptance::wait_for;
use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use listeners::{heads, listening};
use operators::{events, slates, titles};
use show::{Checks, LONG, Mounted, OnAir, in_an_hour, post};
use stage_door::{directing, ingest, media_port, third_source, whip};

const BINARY: &str = env!("CARGO_BIN_EXE_minassa");

/// What a command of the binary ends with: its status and its standard error.
fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Result<(Option<i32>, String)> {
    let directory = tempfile::tempdir()?;
    let output = Command::new(BINARY)
        .args(arguments)
        .envs(environment.iter().copied())
        .current_dir(directory.path())
        .stdin(Stdio::null())
        .output()?;
    Ok((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
}

fn fails(checks: &mut Checks, what: &str, ended: (Option<i32>, String), words: &[&str]) {
    let (status, said) = ended;
    let right =
        status == Some(1) && words.iter().all(|word| said.contains(word)) && !said.contains("panicked");
    checks.holds(what, right, (status, said));
}

fn second_server(show: &OnAir, checks: &mut Checks) -> Result<()> {
    let elsewhere = tempfile::tempdir()?;
    let data = elsewhere.path().join("data").display().to_string();
    let doors = ["--listen", "--push-listen", "--stage-listen", "--files-listen"];
    for (flag, door) in doors.iter().zip(["control", "push", "stage", "files"]) {
        let taken = show.server.door(door)?;
        let mut arguments = vec!["serve", "--data", &data];
        for other in doors {
            arguments.extend([other, if other == *flag { &taken } else { "127.0.0.1:0" }]);
        }
        fails(checks, &format!("{flag} in use"), run(&arguments, &[])?, &[flag, &taken, "in use"]);
    }
    let own = show.server.data().display().to_string();
    let free = doors.iter().flat_map(|flag| [*flag, "127.0.0.1:0"]);
    let arguments: Vec<&str> = ["serve", "--data", &own].into_iter().chain(free).collect();
    fails(checks, "a data directory in use", run(&arguments, &[])?, &[&own, "process"]);
    Ok(())
}

#[test]
fn bad_input_gets_its_answer_and_the_show_goes_on() -> Result<()> {
    let show = OnAir::start(Server::start(BINARY, 1)?)?;
    let mut checks = Checks::default();
    type Group = fn(&OnAir, &mut Checks) -> Result<()>;
    let groups: [(&str, Group); 10] = [
        ("WHIP", whip),
        ("directing", directing),
        ("Icecast sources", ingest),
        ("a third source", third_source),
        ("the media port", media_port),
        ("listening", listening),
        ("events", events),
        ("slates", slates),
        ("titles", titles),
        ("heads", heads),
    ];
    for (name, group) in groups {
        println!("{name}:");
        if let Err(error) = group(&show, &mut checks) {
            checks.judge(&name, Err(error));
        }
        let (state, connections) = (show.speaker.state(), show.listener.look(|report| report.connections));
        checks.holds("the speaker stays", (state.connections, state.failures) == (1, 0), &state);
        checks.holds("the listener stays", connections == 1, connections);
        show.hear_more(1).with_context(|| format!("after {name}"))?;
    }
    println!("a second server:");
    second_server(&show, &mut checks)?;
    assert!(checks.wrong.is_empty(), "{} wrong:\n{}", checks.wrong.len(), checks.wrong.join("\n"));
    assert_eq!(show.alarms()?, Vec::<String>::new(), "no alarm");
    let directories = [show.server.data().to_path_buf()];
    show.end(&directories, &checks.secrets)?;
    println!("{} bad inputs and their answers are as they should be", checks.right);
    Ok(())
}

/// Everything that is wrong with a configuration names its place, key and value, and what is allowed.
#[test]
fn a_wrong_configuration_is_refused() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("minassa.toml");
    let file = path.to_str().context("a path that is text")?;
    let mut checks = Checks::default();
    for (text, words) in [
        ("[origin]\nsession_max = 5\n", &["origin.session_max", "there is no key", "sessions_max"][..]),
        ("[orgin]\n", &["there is no key orgin", "origin"]),
        ("edges = 2\n", &["edges"]),
        ("[origin]\nsessions_max = 0\n", &["origin.sessions_max = 0", "1 to 512"]),
        ("[origin]\nsessions_max = -1\n", &["origin.sessions_max = -1"]),
        ("[origin]\nsessions_max = 99999999999999999999\n", &[]),
        ("[origin]\nsessions_max = \"many\"\n", &["origin.sessions_max", "many"]),
        ("[edge]\nstuck_s = 0\n", &["edge.stuck_s = 0", "1 to 600"]),
        ("[control]\nticket_s = 59\n", &["control.ticket_s = 59", "60 to 86400"]),
        ("[control]\nlisten = \"nowhere\"\n", &["control.listen", "nowhere"]),
        ("[server]\nedges = 257\n", &["server.edges = 257", "256"]),
        ("[server]\nlog_format = \"xml\"\n", &["server.log_format", "xml", "json"]),
        ("[server\n", &["is no TOML"]),
        ("\0\u{FEFF}", &["is no TOML"]),
    ] {
        std::fs::write(&path, text)?;
        let words: Vec<&str> = words.iter().copied().chain([file]).collect();
        for command in ["config", "serve"] {
            let ended = run(&[command, "--config", file], &[])?;
            fails(&mut checks, &format!("{command}: {}", text.trim()), ended, &words);
        }
    }
    std::fs::write(&path, b"[origin]\n\xff\xfe = 1\n")?;
    fails(&mut checks, "no text", run(&["config", "--config", file], &[])?, &[file]);
    assert!(checks.wrong.is_empty(), "{}", checks.wrong.join("\n"));
    Ok(())
}

#[test]
fn a_data_directory_that_cannot_be_written_to_is_named() -> Result<()> {
    let place = tempfile::tempdir()?;
    let file = place.path().join("a-file");
    std::fs::write(&file, "")?;
    let mut paths = vec![PathBuf::from("/proc/minassa-data"), file.clone(), file.join("below")];
    let read_only = place.path().join("read-only");
    std::fs::create_dir(&read_only)?;
    let mounted = Mounted::tmpfs(&read_only, "ro")?;
    paths.extend(mounted.is_some().then(|| read_only.clone()));
    paths.extend(mounted.is_some().then(|| read_only.join("below")));
    let mut checks = Checks::default();
    for path in paths {
        let data = path.to_str().context("a path that is text")?;
        let ended = run(&["serve", "--listen", "127.0.0.1:0", "--data", data], &[])?;
        fails(&mut checks, data, ended, &[data, "--data"]);
    }
    assert!(checks.wrong.is_empty(), "{}", checks.wrong.join("\n"));
    Ok(())
}

/// A show on air on a data directory of ten megabytes; nothing if this process may not make one.
fn on_small_disk(environment: &[(&str, &str)]) -> Result<Option<OnAir>> {
    let mut server = Server::start_with(BINARY, 1, &[], environment)?;
    // The server is started again where nothing is yet but its doors' ports.
    let roles = ["origin", "control", "edge-0"].map(|role| server.pid(role));
    server.kill("supervisor")?;
    wait_for("its children's end", LONG, || {
        Ok((!roles.iter().flatten().any(|pid| alive(*pid))).then_some(()))
    })?;
    let Some(disk) = Mounted::tmpfs(server.data(), "size=10m,mode=700")? else { return Ok(None) };
    server.restart()?;
    Ok(Some(OnAir::start(server)?.on_disk(disk)))
}

/// Fills the disk to its last byte.
fn fill(directory: &Path) -> Result<PathBuf> {
    use std::io::Write as _;
    let path = directory.join("filler");
    let mut file = std::fs::File::create(&path)?;
    let piece = [0xAA; 4_096];
    while file.write(&piece).is_ok_and(|written| written > 0) {}
    let free = rustix::fs::statvfs(directory)?.f_bfree;
    ensure!(free == 0, "{free} blocks are free");
    Ok(path)
}

#[test]
fn a_full_disk_costs_an_alarm_and_nothing_else() -> Result<()> {
    let Some(show) = on_small_disk(&[])? else { return Ok(()) };
    let filler = fill(show.server.data())?;
    wait_for("the recorder's alarm", LONG, || {
        Ok(show.alarms()?.contains(&"recorder".to_owned()).then_some(()))
    })?;
    println!("the disk is full: alarms {:?}", show.alarms()?);
    show.hear_more(12)?;
    let control = show.server.door("control")?;
    let body = json!({ "title": "No room", "starts_at": in_an_hour()? });
    let made = post("/api/events", &show.server.token()?, &body).send(&control)?;
    println!("an event on a full disk: {} {}", made.status, made.text());
    assert!((500..600).contains(&made.status), "{}", made.head);
    assert_eq!(made.header("content-type"), Some("application/problem+json"));
    show.server.command(&["event", "hold", &show.event.event]).context("hold on a full disk")?;
    show.server.command(&["event", "start", &show.event.event]).context("live on a full disk")?;
    show.hear_more(2)?;

    std::fs::remove_file(filler)?;
    wait_for("the alarm to be over", LONG, || Ok(show.alarms()?.is_empty().then_some(())))?;
    wait_for("an event again", LONG, || {
        let made = post("/api/events", &show.server.token()?, &body).send(&control)?;
        Ok((made.status == 201).then_some(()))
    })?;
    // What waited in memory is on the disk now: nothing is missing.
    let directories = [show.server.data().to_path_buf()];
    show.end(&directories, &[])
}

#[test]
fn a_full_disk_moves_the_recording_to_another_directory() -> Result<()> {
    let second = tempfile::tempdir()?;
    let fallback = second.path().to_str().context("a path that is text")?;
    let environment = [("MINASSA_ORIGIN_RECORDING_FALLBACKS", &*format!("[{fallback:?}]"))];
    let Some(show) = on_small_disk(&environment)? else { return Ok(()) };
    fill(show.server.data())?;
    let recorded = || {
        let stage = show.server.stage(&show.event.event)?;
        stage["recorded_through"].as_u64().context("recorded_through")
    };
    let before = recorded()?;
    wait_for("the recording to go on", LONG, || Ok((recorded()? >= before + 15).then_some(())))?;
    ensure!(second.path().join("recordings").join(&show.event.event).is_dir(), "it went on elsewhere");
    println!("the disk is full: recorded through {}, alarms {:?}", recorded()?, show.alarms()?);
    let directories = [show.server.data().to_path_buf(), second.path().to_path_buf()];
    show.end(&directories, &[])
}
