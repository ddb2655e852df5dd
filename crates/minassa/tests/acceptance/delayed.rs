//! The delayed feed behind a real cache: Debian's nginx, configured as docs/delayed.md says.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use acceptance::server::{Server, alive};
use acceptance::signal::{RATE, peak_hz, rms_db, tone, tone_db};
use acceptance::{ffmpeg, hold_delay, wait_for};
use anyhow::{Context as _, Result, ensure};
use formats::hls::{DELAY_LEAST, DELAY_MOST, MediaPlaylist, MultivariantPlaylist};
use rehearse::{Clip, Speaker, SpeakerConfig};

const BINARY: &str = env!("CARGO_BIN_EXE_minassa");
/// What a refusal says of how long it may be kept: two seconds in all.
const SOON: &str = "public, max-age=1, stale-while-revalidate=1";
const HZ: f64 = 600.0;
const DOCS: &str = include_str!("../../../../docs/delayed.md");

/// nginx as the documentation has it, on a free port, in front of one edge. Killed when dropped.
struct Cache {
    child: Child,
    directory: tempfile::TempDir,
    port: u16,
}

impl Cache {
    fn start(files: &str) -> Result<Self> {
        let program = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"]
            .map(|place| PathBuf::from(place).join("nginx"))
            .into_iter()
            .find(|path| path.is_file())
            .context("nginx is needed: `cargo xtask test` installs it")?;
        let directory = tempfile::Builder::new().prefix("minassa-cache-").tempdir()?;
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let place = directory.path().display();
        let sample = DOCS
            .split_once("```nginx\n")
            .and_then(|(_, rest)| rest.split_once("```"))
            .map(|(sample, _)| sample)
            .context("a sample configuration in the documentation")?;
        let mut adapted = sample.to_owned();
        for (documented, here) in [
            ("/var/cache/nginx/minassa", format!("{place}/cache")),
            ("server 127.0.0.1:8082;", format!("server {files};")),
            ("listen 8090;", format!("listen 127.0.0.1:{port};")),
        ] {
            ensure!(adapted.matches(documented).count() == 1, "{documented} once in the documentation");
            adapted = adapted.replace(documented, &here);
        }
        // What Debian's nginx.conf has around it. Whoever starts it owns the directory, so workers stay who they are.
        let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
        let text = format!(
            "daemon off; worker_processes 2; {user} pid {place}/nginx.pid; error_log {place}/error.log warn;\n\
             events {{ worker_connections 2000; }}\n\
             http {{ log_format asked '$request_method $uri $status $upstream_cache_status';\n\
             access_log {place}/access.log asked;\n\
             client_body_temp_path {place}/body; proxy_temp_path {place}/proxy;\n\
             fastcgi_temp_path {place}/fastcgi; uwsgi_temp_path {place}/uwsgi; scgi_temp_path {place}/scgi;\n\
             {adapted}\n}}\n"
        );
        let config = directory.path().join("nginx.conf");
        std::fs::write(&config, text)?;
        let child = Command::new(program)
            .args(["-e", &format!("{place}/error.log"), "-p", &place.to_string(), "-c"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut cache = Self { child, directory, port };
        wait_for("nginx", Duration::from_secs(10), || {
            if let Some(status) = cache.child.try_wait()? {
                return Err(anyhow::anyhow!("nginx ended with {status}"));
            }
            Ok(std::net::TcpStream::connect(("127.0.0.1", port)).ok().map(drop))
        })
        .with_context(|| std::fs::read_to_string(cache.log("error.log")).unwrap_or_default())?;
        Ok(cache)
    }

    fn log(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Answers that it fetched from the edge, by address, since it was started.
    fn fetched(&self) -> Result<BTreeMap<String, u32>> {
        let mut fetched = BTreeMap::new();
        for line in std::fs::read_to_string(self.log("access.log"))?.lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            if let [_, uri, _, "MISS" | "EXPIRED" | "REVALIDATED" | "BYPASS"] = fields[..] {
                *fetched.entry(uri.to_owned()).or_insert(0) += 1;
            }
        }
        Ok(fetched)
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        // Asked to end, the master takes its workers with it.
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("nginx: {}", std::fs::read_to_string(self.log("error.log")).unwrap_or_default());
        }
    }
}

/// An answer whatever its status.
struct Answer {
    status: u16,
    control: String,
    cache: String,
    etag: String,
    body: Vec<u8>,
}

fn agent() -> ureq::Agent {
    ureq::config::Config::builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(30)))
        .build()
        .new_agent()
}

fn get(agent: &ureq::Agent, url: &str) -> Result<Answer> {
    let answer = agent.get(url).call().with_context(|| url.to_owned())?;
    let header = |name: &str| {
        answer.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    };
    let (control, cache, etag) = (header("cache-control"), header("x-cache-status"), header("etag"));
    let status = answer.status().as_u16();
    Ok(Answer { status, control, cache, etag, body: answer.into_body().read_to_vec()? })
}

/// Answers of the edge's files door so far, without those that are measurements.
struct Edge<'a> {
    agent: &'a ureq::Agent,
    url: String,
    asked: std::cell::Cell<u64>,
}

impl Edge<'_> {
    fn answers(&self) -> Result<u64> {
        let text = String::from_utf8(get(self.agent, &self.url)?.body)?;
        let counted: u64 = text
            .lines()
            .filter(|line| line.starts_with("minassa_edge_file_answers_total{"))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum();
        // One that is being made is not counted yet.
        let before = self.asked.replace(self.asked.get() + 1);
        Ok(counted - before)
    }
}

/// Asks for the same from many places at the same moment.
fn crowd(count: usize, url: &str) -> Result<Vec<Answer>> {
    let together = Barrier::new(count);
    std::thread::scope(|scope| {
        let one = || {
            let agent = agent();
            together.wait();
            get(&agent, url)
        };
        let all: Vec<_> = (0..count).map(|_| scope.spawn(one)).collect();
        all.into_iter().map(|one| one.join().expect("a client")).collect()
    })
}

fn playlist(agent: &ureq::Agent, url: &str) -> Result<Option<MediaPlaylist>> {
    let answer = get(agent, url)?;
    if answer.status != 200 {
        return Ok(None);
    }
    Ok(Some(MediaPlaylist::parse(std::str::from_utf8(&answer.body)?)?))
}

#[test]
fn a_real_cache_carries_the_delayed_feed() -> Result<()> {
    let server = Server::start(BINARY, 1)?;
    let event = server.create_event(8.0, &[])?;
    let files = server.door("files")?;
    let cache = Cache::start(&files)?;
    let agent = agent();
    let edge = Edge { agent: &agent, url: format!("http://{files}/metrics"), asked: std::cell::Cell::new(0) };
    let base = format!("/live/{}", event.event);
    let index = cache.url(&format!("{base}/delayed.m3u8"));

    // Nothing is there yet: everybody is told so, most by the cache, for no longer than it is said to last.
    let before = edge.answers()?;
    let early = crowd(100, &index)?;
    let asked = edge.answers()? - before;
    assert!(early.iter().all(|answer| answer.status == 503 && answer.control == SOON));
    println!("nothing there: 100 at once, {asked} came through to the edge");
    assert_eq!(asked, 1);

    let whip = format!("http://{}/whip/{}", server.door("stage")?, event.event);
    let clip = Clip::new(tone(HZ, 0.25, 10.0))?;
    let speaker = Speaker::start(SpeakerConfig::new(&whip, &event.speaker_invites[0], clip))?;
    ensure!(speaker.wait_connected(Duration::from_secs(15)), "{:?}", speaker.state());
    server.wait_state(&event.event, "live", Duration::from_secs(20))?;

    // People ask the cache all the time. It may say `503` for 2 s after the edge has a segment, and for the moment that
    // lies between two who ask.
    let direct = format!("http://{files}{base}/delayed.m3u8");
    let (mut there, mut refused) = (None, 0u32);
    let late = wait_for("the first delayed segment", Duration::from_secs(60), || {
        if there.is_none() && get(&agent, &direct)?.status == 200 {
            there = Some(Instant::now());
        }
        let answer = get(&agent, &index)?;
        refused += u32::from(answer.status == 503);
        assert!(answer.status == 503 || answer.status == 200, "{}", answer.status);
        Ok(if answer.status == 200 { there.map(|there| there.elapsed()) } else { None })
    })?;
    println!("the 503 lasted {:.2} s longer than there was nothing ({refused} answers)", late.as_secs_f64());
    hold_delay("a 503 in the cache, s", late.as_secs_f64(), 2.5);

    let served = get(&agent, &index)?;
    let variants = MultivariantPlaylist::parse(std::str::from_utf8(&served.body)?)?.variants;
    assert_eq!(variants[0].uri, "delayed/opus-48.m3u8");
    let media = |rendition: &str| cache.url(&format!("{base}/delayed/{rendition}.m3u8"));
    let live = wait_for("three segments", Duration::from_secs(90), || {
        Ok(playlist(&agent, &media("opus-48"))?.filter(|playlist| playlist.segments.len() == 3))
    })?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis();
    let behind = (now as f64 - live.segments[0].program_date_time.as_millis() as f64) / 1_000.0;
    println!(
        "a player that comes now begins {behind:.1} s behind the wall clock (by design {:.1} to {:.1} s, and what a playlist is old)",
        DELAY_LEAST.as_secs_f64(),
        DELAY_MOST.as_secs_f64()
    );
    assert!((46.0..80.0).contains(&behind), "{behind}");

    // A crowd on each segment of each rendition: the edge is asked once.
    let before = edge.answers()?;
    let mut segments = 0;
    for rendition in ["opus-48", "opus-24", "mp3-64"] {
        let playlist = playlist(&agent, &media(rendition))?.context("a playlist")?;
        for listed in &playlist.segments {
            let all = crowd(100, &cache.url(&format!("{base}/delayed/{}", listed.uri)))?;
            assert!(all.iter().all(|one| one.status == 200 && one.etag == all[0].etag));
            assert!(all.iter().all(|one| one.body == all[0].body));
            assert_eq!(all[0].control, "public, max-age=31536000, immutable");
            segments += 1;
        }
    }
    let asked = edge.answers()? - before;
    let fetched: BTreeMap<_, _> =
        cache.fetched()?.into_iter().filter(|(uri, _)| !uri.ends_with("m3u8")).collect();
    println!(
        "{segments} segments, 100 clients each: {asked} answers of the edge with playlists, fetches {fetched:?}"
    );
    assert_eq!(fetched.len(), segments);
    assert!(fetched.values().all(|count| *count == 1), "{fetched:?}");
    // A playlist each of two renditions that nobody had asked for, and what of them became old meanwhile.
    assert!(asked <= segments as u64 + 8, "{asked}");

    // A ticket, a query or a cookie makes no other thing of it.
    let segment = cache.url(&format!("{base}/delayed/{}", live.segments[2].uri));
    for url in [format!("{segment}?ticket=abc"), format!("{segment}?_HLS_msn=1&x=%00")] {
        let answer = get(&agent, &url)?;
        assert_eq!((answer.status, answer.cache.as_str()), (200, "HIT"), "{url}");
    }
    let mut head = agent.head(&segment).header("cookie", "a=b").call()?;
    let length = get(&agent, &segment)?.body.len();
    assert_eq!(head.headers()["x-cache-status"], "HIT");
    assert_eq!(head.headers()["content-length"], length.to_string());
    assert!(head.body_mut().read_to_vec()?.is_empty());
    let some = agent.get(&segment).header("range", "bytes=10-19").call()?;
    assert_eq!((some.status().as_u16(), some.into_body().read_to_vec()?.len()), (206, 10));

    // An independent player, through the cache: it begins with what is listed and waits for one more at least.
    let players: Vec<_> = [("opus-48", 55.0), ("opus-24", 20.0), ("mp3-64", 55.0)]
        .into_iter()
        .map(|(rendition, seconds)| {
            let url = media(rendition);
            (rendition, seconds, std::thread::spawn(move || ffmpeg::listen(&[], &url, seconds)))
        })
        .collect();
    for (rendition, seconds, player) in players {
        let heard = player.join().expect("a player")?;
        let samples = &heard.samples;
        assert!(samples.len() as f64 >= (seconds - 1.0) * RATE as f64, "{rendition}: {}", samples.len());
        assert!(heard.warnings.is_empty(), "{rendition}: {:?}", heard.warnings);
        // The last two seconds, which were spoken after everything that might be odd at the start.
        let tail = &samples[samples.len() - 2 * RATE..];
        let (hz, of_all) = (peak_hz(tail, RATE as f64), tone_db(tail, HZ, RATE as f64) - 3.01 - rms_db(tail));
        println!(
            "ffmpeg {rendition}: {:.1} s, no warning, {hz:.1} Hz, {of_all:.1} dB of all that is heard",
            samples.len() as f64 / RATE as f64
        );
        assert!((hz - HZ).abs() < 2.0, "{rendition}: {hz}");
        assert!(of_all > -1.0, "{rendition}: {of_all}");
    }

    // The end comes through.
    server.command(&["event", "end", &event.event])?;
    let ended = wait_for("the end in the cache", Duration::from_secs(40), || {
        Ok(playlist(&agent, &media("opus-48"))?.filter(|playlist| playlist.ended))
    })?;
    let last = ended.segments.last().context("a last segment")?;
    let last = get(&agent, &cache.url(&format!("{base}/delayed/{}", last.uri)))?;
    assert_eq!(last.status, 200);
    drop(speaker);
    serves_what_it_has(server, &cache, &base, &agent, &ended)
}

/// With the whole server dead.
fn serves_what_it_has(
    server: Server,
    cache: &Cache,
    base: &str,
    agent: &ureq::Agent,
    ended: &MediaPlaylist,
) -> Result<()> {
    let edge = server.pid("edge-0")?;
    drop(server);
    wait_for("the edge to be gone", Duration::from_secs(10), || Ok((!alive(edge)).then_some(())))?;
    // Older than it may be, also while it is being asked for.
    std::thread::sleep(Duration::from_secs(13));
    let playlist = crowd(20, &cache.url(&format!("{base}/delayed/opus-48.m3u8")))?;
    assert!(playlist.iter().all(|answer| answer.status == 200), "the playlist stays");
    assert!(playlist.iter().any(|answer| answer.cache == "STALE"));
    let found = MediaPlaylist::parse(std::str::from_utf8(&playlist[0].body)?)?;
    assert_eq!(found.segments.len(), ended.segments.len());
    let mut hits = 0;
    for listed in &ended.segments {
        let answer = get(agent, &cache.url(&format!("{base}/delayed/{}", listed.uri)))?;
        hits += u32::from(answer.status == 200 && answer.cache == "HIT");
    }
    println!("with the server dead: the playlist, and {hits} of {} segments listed", ended.segments.len());
    assert!(hits >= 1, "what was fetched stays");
    Ok(())
}
