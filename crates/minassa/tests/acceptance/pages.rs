//! The pages in a real browser: their modules' own tests, and every page in both languages and two widths.
//!
//! Pictures are written to `target/screenshots` for people to look at.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use acceptance::browser::{Browser, Options};
use acceptance::server::Server;
use anyhow::{Context as _, Result};

const BINARY: &str = env!("CARGO_BIN_EXE_minassa");

#[test]
fn the_modules_pass_their_own_tests() -> Result<()> {
    // The modules as they are embedded, and beside them the tests that no server has.
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = format!("http://{}", listener.local_addr()?);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || -> Result<()> {
                let mut reader = BufReader::new(stream);
                let mut line = String::new();
                reader.read_line(&mut line)?;
                let path = line.split_whitespace().nth(1).unwrap_or("/").to_owned();
                while line != "\r\n" && !line.is_empty() {
                    line.clear();
                    reader.read_line(&mut line)?;
                }
                let asset = path
                    .strip_prefix("/tests/")
                    .and_then(web::test_asset)
                    .or_else(|| path.strip_prefix("/assets/").and_then(web::asset));
                let (status, kind, body) = match &asset {
                    Some(asset) => ("200 OK", asset.content_type, asset.bytes),
                    None => ("200 OK", "text/html", b"<!doctype html><title>tests</title>".as_slice()),
                };
                let mut stream = reader.into_inner();
                write!(
                    stream,
                    "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                )?;
                Ok(stream.write_all(body)?)
            });
        }
    });
    let mut browser = Browser::open(&address, &Options::default())?;
    let result = browser.eval("(async () => (await import('/tests/unit.js')).run('/assets/'))()")?;
    println!("modules: {} passed, {} failed", result["passed"], result["failed"]);
    assert_eq!(result["failed"], 0, "{}", result["messages"]);
    assert!(result["passed"].as_u64().unwrap_or(0) >= 20, "the tests ran");
    Ok(())
}

#[test]
fn pages_fit_and_say_nothing_on_the_console() -> Result<()> {
    let server = Server::start(BINARY, 1)?;
    let soon = server.create_event(600.0, &["--title-ar", "حديث الليل", "--slug", "soon"])?;
    let over = server.create_event(600.0, &["--title-ar", "حديث الأمس", "--slug", "over"])?;
    server.command(&["event", "start", "over"])?;
    std::thread::sleep(Duration::from_secs(6));
    server.command(&["event", "end", "over"])?;
    let pictures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/screenshots");
    std::fs::create_dir_all(&pictures)?;
    let control = format!("http://{}/", server.door("control")?);
    for language in ["ar", "en"] {
        for (width, height) in [(390, 844), (1_280, 800)] {
            let options =
                Options { size: Some((width, height)), language: Some(language), ..Options::default() };
            let mut browser = Browser::open("about:blank", &options)?;
            for (name, address) in [
                ("index", &control),
                ("listener", &soon.listen),
                ("replay", &over.listen),
                ("stage", &soon.host),
            ] {
                browser.console.clear();
                browser.go(address)?;
                let shown = match name {
                    "index" => "document.querySelectorAll('a[href*=\"/e/\"]').length >= 2",
                    "listener" => {
                        "document.body.innerText.length > 80 && !document.querySelector('#play').hidden"
                    }
                    "replay" => {
                        "!!document.querySelector('#replay-play') && document.querySelector('#replay-play').offsetParent !== null"
                    }
                    _ => {
                        "document.querySelector('#allow').offsetParent !== null || !document.querySelector('#ready').hidden"
                    }
                };
                browser
                    .wait(shown, Duration::from_secs(15))
                    .with_context(|| format!("{name} in {language}"))?;
                let root = browser.eval(
                    "[document.documentElement.lang, document.documentElement.dir, document.documentElement.scrollWidth, window.innerWidth]",
                )?;
                assert_eq!(root[0], language);
                assert_eq!(root[1], if language == "ar" { "rtl" } else { "ltr" });
                assert!(root[2].as_u64() <= root[3].as_u64(), "{name} is wider than the screen: {root}");
                browser.screenshot(&pictures.join(format!("{name}-{language}-{width}.png")))?;
                let complaints: Vec<_> = browser
                    .console
                    .iter()
                    .filter(|line| !line.starts_with("log") && !line.starts_with("info"))
                    .collect();
                assert!(complaints.is_empty(), "{name} in {language}: {complaints:?}");
            }
        }
    }
    Ok(())
}
