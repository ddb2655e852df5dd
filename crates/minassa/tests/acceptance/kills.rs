//! `kill -9` is an ordinary way to stop: must hold 7. `MINASSA_REPEAT=20` makes the closing figures.

use std::time::{Duration, Instant};

use acceptance::browser::{Browser, Options};
use acceptance::server::{Links, Server, alive};
use acceptance::{hold_delay, quantile, repeats, wait_for};
use anyhow::{Context as _, Result, ensure};
use model::PartNumber;
use rehearse::{PushConfig, PushListener, Speaker, SpeakerConfig, Tone};
use rustix::process::Signal;
use tokio::runtime::Runtime;

const BINARY: &str = env!("CARGO_BIN_EXE_minassa");

fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?)
}

/// An event on air with two speakers.
struct Show {
    server: Server,
    event: Links,
    speakers: Vec<Speaker>,
}

impl Show {
    fn start(edges: usize) -> Result<Self> {
        let server = Server::start(BINARY, edges)?;
        let event = server.create_event(2.0, &[])?;
        let mut show = Self { server, event, speakers: Vec::new() };
        for (index, hz) in [600, 1_000].into_iter().enumerate() {
            show.speakers.push(show.speaker(index, hz)?);
        }
        for speaker in &show.speakers {
            ensure!(speaker.wait_connected(Duration::from_secs(10)), "{:?}", speaker.state());
        }
        show.server.wait_state(&show.event.event, "live", Duration::from_secs(20))?;
        Ok(show)
    }

    fn speaker(&self, index: usize, hz: u32) -> Result<Speaker> {
        let whip = format!("http://{}/whip/{}", self.server.door("stage")?, self.event.event);
        let voice = Tone { hz, peak: 0.25 };
        Ok(Speaker::start(SpeakerConfig::new(whip, &self.event.speaker_invites[index], voice))?)
    }

    fn listeners(&self, runtime: &Runtime, count: u64) -> Result<Vec<PushListener>> {
        let address = format!("http://{}/live/{}/opus-48.mp4", self.server.door("push")?, self.event.event);
        let _inside = runtime.enter();
        let listeners: Vec<_> = (0..count)
            .map(|seed| PushListener::start(PushConfig { seed, ..PushConfig::new(&address) }))
            .collect();
        wait_for("all to listen", Duration::from_secs(20), || {
            Ok(listeners.iter().all(|l| l.look(|r| r.parts.len() >= 3)).then_some(()))
        })?;
        Ok(listeners)
    }
}

/// Waits until every listener has something newer than `than` had, and returns how long the slowest took.
fn all_newer(listeners: &[PushListener], than: &[Option<PartNumber>], within: Duration) -> Result<Duration> {
    let start = Instant::now();
    wait_for("every listener to be back", within, || {
        let back = listeners.iter().zip(than).filter(|(l, before)| l.look(|r| r.newest() > **before)).count();
        ensure!(back == listeners.len(), "{back} of {} are back", listeners.len());
        Ok(Some(()))
    })?;
    Ok(start.elapsed())
}

fn newest(listeners: &[PushListener]) -> Vec<Option<PartNumber>> {
    listeners.iter().map(|l| l.look(|r| r.newest())).collect()
}

fn print(what: &str, seconds: &[f64]) {
    println!(
        "{what}: {} times, p50 {:.2} s, longest {:.2} s",
        seconds.len(),
        quantile(seconds, 0.5),
        quantile(seconds, 1.0)
    );
}

#[test]
fn an_edge_is_killed_under_two_hundred_listeners() -> Result<()> {
    let show = Show::start(2)?;
    let runtime = runtime()?;
    let listeners = show.listeners(&runtime, 200)?;
    let mut back = Vec::new();
    for trial in 0..repeats(3) {
        let role = format!("edge-{}", trial % 2);
        let connections: u32 = listeners.iter().map(|l| l.look(|r| r.connections)).sum();
        let pid = show.server.kill(&role)?;
        let killed = Instant::now();
        wait_for("the victims to be back", Duration::from_secs(10), || {
            let again: u32 = listeners.iter().map(|l| l.look(|r| r.connections)).sum();
            Ok((again > connections).then_some(()))
        })?;
        all_newer(&listeners, &newest(&listeners), Duration::from_secs(10))?;
        back.push(killed.elapsed().as_secs_f64());
        show.server.wait_replaced(&role, pid, Duration::from_secs(10))?;
    }
    print("an edge killed, all 200 listeners back with a new part", &back);
    for listener in &listeners {
        let report = listener.report();
        assert!(report.is_contiguous() && report.missed == 0, "a listener missed parts: {:?}", report.errors);
    }
    hold_delay("listeners back, s", quantile(&back, 1.0), 3.0);
    Ok(())
}

#[test]
fn control_is_killed_and_hangs_and_nobody_notices() -> Result<()> {
    let mut show = Show::start(1)?;
    let runtime = runtime()?;
    let listeners = show.listeners(&runtime, 20)?;
    let server = &show.server;
    let before: u32 = listeners.iter().map(|l| l.look(|r| r.connections)).sum();
    let states: Vec<_> = show.speakers.iter().map(|s| s.state().connections).collect();
    for trial in 0..repeats(3) {
        let pid =
            if trial % 2 == 0 { server.kill("control")? } else { server.signal("control", Signal::STOP)? };
        // While it is away, a speaker leaves and comes again, the event goes on hold and live: all at origin's door.
        let held = server.command(&["event", "hold", &show.event.event]);
        held.context("hold without control")?;
        show.speakers.remove(0).leave();
        server.command(&["event", "start", &show.event.event]).context("start without control")?;
        let asked = Instant::now();
        let again = show.speaker(0, 600)?;
        assert!(again.wait_connected(Duration::from_secs(20)), "{:?}", again.state());
        hold_delay("a speaker comes without control, s", asked.elapsed().as_secs_f64(), 3.0);
        show.speakers.insert(0, again);
        server.wait_replaced("control", pid, Duration::from_secs(30))?;
    }
    let after: u32 = listeners.iter().map(|l| l.look(|r| r.connections)).sum();
    assert_eq!(before, after, "no listener had to come back");
    for listener in &listeners {
        assert!(listener.look(|r| r.is_contiguous()), "no listener missed a part");
    }
    assert_eq!(show.speakers[1].state().connections, states[1], "the other speaker was not disturbed");
    let pid = show.server.signal("control", Signal::STOP)?;
    show.server.command(&["event", "end", &show.event.event]).context("end without control")?;
    show.server.wait_state(&show.event.event, "ended", Duration::from_secs(20))?;
    show.server.wait_replaced("control", pid, Duration::from_secs(30))?;
    println!("control killed or stopped {} times: nobody came back, nothing missed", repeats(3));
    Ok(())
}

#[test]
fn origin_is_killed_while_live() -> Result<()> {
    let show = Show::start(1)?;
    let runtime = runtime()?;
    let listeners = show.listeners(&runtime, 20)?;
    let mut page = Browser::open(&show.event.listen, &Options::default())?;
    page.wait("!!document.querySelector('#play:not([disabled])')", Duration::from_secs(20))?;
    page.eval("document.querySelector('#play').click()")?;
    page.wait("document.querySelector('audio').currentTime > 0", Duration::from_secs(20))?;
    let event = &show.event.event;
    let (mut programme, mut speakers) = (Vec::new(), Vec::new());
    let mut recorded_through = 0;
    for _ in 0..repeats(3) {
        let connections: Vec<_> = show.speakers.iter().map(|s| s.state().connections).collect();
        recorded_through =
            show.server.stage(event)?["recorded_through"].as_u64().context("recorded_through")?;
        let pid = show.server.kill("origin")?;
        let killed = Instant::now();
        for (speaker, before) in show.speakers.iter().zip(connections) {
            speaker
                .wait(Duration::from_secs(10), |s| {
                    (s.connections > before && s.phase == rehearse::Phase::Connected).then_some(())
                })
                .with_context(|| format!("{:?}", speaker.state()))?;
        }
        speakers.push(killed.elapsed().as_secs_f64());
        all_newer(&listeners, &newest(&listeners), Duration::from_secs(10))?;
        programme.push(killed.elapsed().as_secs_f64());
        show.server.wait_replaced("origin", pid, Duration::from_secs(10))?;
        // The page plays on across the hole.
        let before = page.eval("document.querySelector('audio').currentTime")?.as_f64().context("a time")?;
        page.wait(
            &format!("document.querySelector('audio').currentTime > {before} + 1.5"),
            Duration::from_secs(10),
        )?;
    }
    print("origin killed, both speakers back", &speakers);
    print("origin killed, a new part at every listener", &programme);
    hold_delay("speakers back, s", quantile(&speakers, 1.0), 3.0);
    hold_delay("programme on air, s", quantile(&programme, 1.0), 3.0);
    for listener in &listeners {
        let report = listener.report();
        assert!(report.is_contiguous(), "gap parts fill the hole: {:?}", report.errors);
    }
    // A hole that is surely longer than a part: for three of them nobody starts origin again.
    show.server.signal("supervisor", Signal::STOP)?;
    let pid = show.server.kill("origin")?;
    std::thread::sleep(3 * model::PART_DURATION);
    show.server.signal("supervisor", Signal::CONT)?;
    show.server.wait_replaced("origin", pid, Duration::from_secs(20))?;
    all_newer(&listeners, &newest(&listeners), Duration::from_secs(20))?;
    let first = listeners[0].report();
    show.server.command(&["event", "end", event])?;
    show.server.wait_state(event, "ended", Duration::from_secs(5))?;

    // The recording holds everything from its first part on, and what a listener got is what was recorded.
    let recording = archive::Recording::open(&[show.server.data().to_path_buf()], &event.parse()?)?;
    let range = recording.parts();
    assert!(range.end.get() > recorded_through);
    let mut gaps = 0;
    for number in range.start.get()..range.end.get() {
        let number = PartNumber::new(number);
        let entry =
            recording.entry(model::Rendition::Opus48, number).with_context(|| format!("part {number}"))?;
        gaps += usize::from(entry.kind == model::PartKind::Gap);
        if let Some(received) = first.parts.iter().find(|part| part.number == number) {
            assert_eq!(received.digest, entry.digest, "part {number} is recorded as it was aired");
        }
    }
    println!("{} parts recorded, {gaps} of them marked gaps", range.end.get() - range.start.get());
    assert!(gaps > 0, "the hole is marked");
    Ok(())
}

#[test]
fn the_supervisor_is_killed_and_the_next_start_resumes() -> Result<()> {
    let mut show = Show::start(1)?;
    let runtime = runtime()?;
    let listeners = show.listeners(&runtime, 20)?;
    let mut back = Vec::new();
    for _ in 0..repeats(3) {
        let roles = ["supervisor", "origin", "control", "edge-0"];
        let pids: Vec<u32> = roles.iter().map(|role| show.server.pid(role)).collect::<Result<_>>()?;
        show.server.kill("supervisor")?;
        let killed = Instant::now();
        wait_for("no second server to be left behind", Duration::from_secs(5), || {
            // The supervisor itself is this test's child and is reaped by the restart below.
            Ok((!pids[1..].iter().any(|pid| alive(*pid))).then_some(()))
        })?;
        let before = newest(&listeners);
        show.server.restart()?;
        all_newer(&listeners, &before, Duration::from_secs(20))?;
        back.push(killed.elapsed().as_secs_f64());
        show.server.wait_state(&show.event.event, "live", Duration::from_secs(20))?;
        for speaker in &show.speakers {
            assert!(speaker.wait_connected(Duration::from_secs(30)), "{:?}", speaker.state());
        }
    }
    print("supervisor killed and started again, a new part at every listener", &back);
    for listener in &listeners {
        assert!(listener.look(|r| r.is_contiguous()));
    }
    Ok(())
}

#[test]
fn a_step_of_the_wall_clock_moves_nothing_but_an_alarm() -> Result<()> {
    let library = [
        "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
        "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    ]
    .into_iter()
    .find(|path| std::path::Path::new(path).exists())
    .context("faketime is needed: `cargo xtask test` installs it")?;
    let folder = tempfile::tempdir()?;
    let offset = folder.path().join("offset");
    std::fs::write(&offset, "+0\n")?;
    let server = Server::start_with(
        BINARY,
        1,
        &[],
        &[
            ("LD_PRELOAD", library),
            ("FAKETIME_TIMESTAMP_FILE", &offset.display().to_string()),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ],
    )?;
    let event = server.create_event(2.0, &[])?;
    let mut show = Show { server, event, speakers: Vec::new() };
    show.speakers.push(show.speaker(0, 600)?);
    show.server.wait_state(&show.event.event, "live", Duration::from_secs(20))?;
    let runtime = runtime()?;
    let listeners = show.listeners(&runtime, 5)?;
    for step in ["+3600", "+0", "-3600", "+0"] {
        // Whole or not at all: processes read it all the time.
        std::fs::write(folder.path().join("next"), format!("{step}\n"))?;
        std::fs::rename(folder.path().join("next"), &offset)?;
        let (asked, from) = (Instant::now(), listeners[0].look(|r| r.newest()).context("a part")?);
        std::thread::sleep(Duration::from_secs(5));
        let to = listeners[0].look(|r| r.newest()).context("a part")?;
        let expected = asked.elapsed().as_secs_f64() / 0.48;
        let came = (to.get() - from.get()) as f64;
        println!(
            "wall clock {step} s: {came} parts came in {:.1} s, {expected:.1} were due",
            asked.elapsed().as_secs_f64()
        );
        // A machine that stands still as a sample is taken is off by parts, a step of an hour by 7,500 of them.
        hold_delay("parts off", (came - expected).abs(), 2.0);
        let stage = show.server.stage(&show.event.event)?;
        let alarm = stage["alarms"].as_array().context("alarms")?.iter().any(|a| a == "clock_step");
        assert_eq!(alarm, step != "+0", "{stage}");
        assert_eq!(stage["state"], "live");
    }
    for listener in &listeners {
        assert!(listener.look(|r| r.is_contiguous() && r.connections == 1));
    }
    Ok(())
}
