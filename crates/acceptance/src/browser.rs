//! A real Chromium, driven over the DevTools protocol.

use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Value, json};
use tungstenite::{Message, WebSocket, client::client};

use crate::wait_for;

/// One browser with one page. Its own process and profile, so that each speaker has a microphone of its own.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    _profile: tempfile::TempDir,
    socket: WebSocket<TcpStream>,
    session: String,
    next_id: u64,
    /// What the page wrote to its console, and its uncaught errors.
    pub console: Vec<String>,
}

/// How a browser is started.
#[derive(Debug, Default, Clone)]
pub struct Options<'a> {
    /// A WAV file as its microphone; it begins when the microphone is opened and starts again at its end.
    pub microphone: Option<&'a Path>,
    /// Window size in CSS pixels; 1280 × 800 if not given.
    pub size: Option<(u32, u32)>,
    /// `Accept-Language`; English if not given.
    pub language: Option<&'a str>,
}

impl Browser {
    /// Starts Chromium and opens `address`.
    ///
    /// # Errors
    /// If Chromium is not installed or does not come up.
    pub fn open(address: &str, options: &Options<'_>) -> Result<Self> {
        let profile = tempfile::Builder::new().prefix("minassa-chromium-").tempdir()?;
        let (width, height) = options.size.unwrap_or((1_280, 800));
        let mut command = Command::new("chromium");
        command
            .args([
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--disable-extensions",
                "--disable-dev-shm-usage",
                "--autoplay-policy=no-user-gesture-required",
                "--use-fake-ui-for-media-stream",
                "--use-fake-device-for-media-stream",
                "--remote-debugging-port=0",
            ])
            .arg(format!("--lang={}", options.language.unwrap_or("en")))
            .arg(format!("--accept-lang={}", options.language.unwrap_or("en")))
            .arg(format!("--window-size={width},{height}"))
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        if let Some(file) = options.microphone {
            command.arg(format!("--use-file-for-fake-audio-capture={}", file.display()));
        }
        let mut child = command.spawn().context("chromium is needed: `cargo xtask test` installs it")?;
        let stderr = child.stderr.take().context("its standard error was piped")?;
        let (found, endpoint) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Some((_, address)) = line.split_once("DevTools listening on ") {
                    let _ = found.send(address.trim().to_owned());
                }
            }
        });
        let endpoint = endpoint
            .recv_timeout(Duration::from_secs(30))
            .context("Chromium did not say where it listens")?;
        let host = endpoint.trim_start_matches("ws://").split('/').next().unwrap_or_default().to_owned();
        let stream = TcpStream::connect(&host)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let (socket, _) = client(&endpoint, stream).map_err(|error| anyhow::anyhow!("{error}"))?;
        let mut browser = Self {
            child,
            _profile: profile,
            socket,
            session: String::new(),
            next_id: 0,
            console: Vec::new(),
        };
        let targets = browser.call("Target.getTargets", json!({}))?;
        let page = targets["targetInfos"]
            .as_array()
            .and_then(|targets| targets.iter().find(|target| target["type"] == "page"))
            .and_then(|target| target["targetId"].as_str())
            .context("a page")?
            .to_owned();
        let attached = browser.call("Target.attachToTarget", json!({ "targetId": page, "flatten": true }))?;
        browser.session = attached["sessionId"].as_str().context("a session")?.to_owned();
        browser.call("Page.enable", json!({}))?;
        browser.call("Runtime.enable", json!({}))?;
        browser.call("Log.enable", json!({}))?;
        // Only so that a test may load its measuring worklet; the pages themselves are tried under their policy.
        browser.call("Page.setBypassCSP", json!({ "enabled": true }))?;
        browser.call(
            "Emulation.setDeviceMetricsOverride",
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 }),
        )?;
        browser.go(address)?;
        Ok(browser)
    }

    /// Opens another address and waits until it is loaded.
    ///
    /// # Errors
    /// If it cannot be loaded.
    pub fn go(&mut self, address: &str) -> Result<()> {
        let answer = self.call("Page.navigate", json!({ "url": address }))?;
        ensure!(answer["errorText"].is_null(), "{address}: {}", answer["errorText"]);
        wait_for("the page to be loaded", Duration::from_secs(30), || {
            Ok((self.eval("document.readyState")? == "complete").then_some(()))
        })
    }

    /// One DevTools call.
    ///
    /// # Errors
    /// If the browser says no, or nothing for a minute.
    pub fn call(&mut self, method: &str, parameters: Value) -> Result<Value> {
        self.next_id += 1;
        let id = self.next_id;
        let mut message = json!({ "id": id, "method": method, "params": parameters });
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        self.socket.send(Message::text(message.to_string()))?;
        loop {
            let Message::Text(text) = self.socket.read().with_context(|| format!("waiting for {method}"))?
            else {
                continue;
            };
            let mut answer: Value = serde_json::from_str(&text)?;
            if answer["id"] == id {
                if let Some(error) = answer.get("error") {
                    bail!("{method}: {error}");
                }
                return Ok(answer["result"].take());
            }
            self.note(&answer);
        }
    }

    fn note(&mut self, event: &Value) {
        let parameters = &event["params"];
        match event["method"].as_str() {
            Some("Runtime.consoleAPICalled") => {
                let words: Vec<_> = parameters["args"]
                    .as_array()
                    .map(|args| {
                        args.iter().map(|a| a["value"].to_string() + a["description"].as_str().unwrap_or(""))
                    })
                    .into_iter()
                    .flatten()
                    .collect();
                self.console.push(format!(
                    "{}: {}",
                    parameters["type"].as_str().unwrap_or(""),
                    words.join(" ")
                ));
            }
            Some("Runtime.exceptionThrown") => {
                self.console.push(format!("exception: {}", parameters["exceptionDetails"]));
            }
            Some("Log.entryAdded") => {
                let entry = &parameters["entry"];
                self.console.push(format!("{}: {} {}", entry["level"], entry["text"], entry["url"]));
            }
            _ => {}
        }
    }

    /// Evaluates an expression, waits for it if it is a promise, and returns its value. It counts as a user's
    /// gesture.
    ///
    /// # Errors
    /// If it throws.
    pub fn eval(&mut self, expression: &str) -> Result<Value> {
        let mut answer = self.call(
            "Runtime.evaluate",
            json!({ "expression": expression, "awaitPromise": true, "returnByValue": true, "userGesture": true }),
        )?;
        if let Some(exception) = answer.get("exceptionDetails") {
            bail!("{expression}: {}", exception["exception"]["description"].as_str().unwrap_or("it threw"));
        }
        Ok(answer["result"]["value"].take())
    }

    /// Waits until an expression is true.
    ///
    /// # Errors
    /// If it is not within `within`; with what the console said.
    pub fn wait(&mut self, expression: &str, within: Duration) -> Result<()> {
        let waited = wait_for(expression, within, || Ok((self.eval(expression)? == true).then_some(())));
        waited.with_context(|| format!("the console said: {}", self.console.join("\n")))
    }

    /// A picture of the page as PNG.
    ///
    /// # Errors
    /// If it cannot be taken or written.
    pub fn screenshot(&mut self, to: &Path) -> Result<()> {
        let answer = self.call("Page.captureScreenshot", json!({ "format": "png" }))?;
        let data = answer["data"].as_str().context("a picture")?;
        Ok(std::fs::write(to, BASE64_STANDARD.decode(data)?)?)
    }

    /// Begins to record what `source` yields into `window.taps[name]`: an expression that, given an `AudioContext`
    /// named `context`, is an `AudioNode`.
    ///
    /// # Errors
    /// If the expression throws.
    pub fn tap(&mut self, name: &str, source: &str) -> Result<()> {
        let script = format!(
            r"(async () => {{
                window.taps ??= {{}};
                const context = new AudioContext({{ sampleRate: 48000, latencyHint: 'interactive' }});
                await context.resume();
                const code = `registerProcessor('tap', class extends AudioWorkletProcessor {{
                    process(inputs) {{
                        const channels = inputs[0];
                        const mix = new Float32Array(128);
                        for (const channel of channels) for (let i = 0; i < 128; i++) mix[i] += channel[i] / channels.length;
                        this.port.postMessage([currentFrame, mix]);
                        return true;
                    }}
                }});`;
                await context.audioWorklet.addModule(URL.createObjectURL(new Blob([code], {{ type: 'text/javascript' }})));
                const node = new AudioWorkletNode(context, 'tap', {{ channelCount: 2, channelCountMode: 'max' }});
                const source = {source};
                source.connect(node);
                // An element that is tapped is silent elsewhere, and a graph that leads nowhere does not run.
                node.connect(context.destination);
                const tap = {{ context, source, blocks: [], clock: [] }};
                node.port.onmessage = (event) => {{
                    tap.blocks.push(event.data);
                    if (tap.blocks.length % 16 === 1) {{
                        const stamp = context.getOutputTimestamp();
                        // The frame that is being computed now, and the moment, on the clock all pages share.
                        tap.clock.push([event.data[0], performance.timeOrigin + performance.now(),
                            stamp.contextTime, performance.timeOrigin + stamp.performanceTime]);
                    }}
                }};
                window.taps[{name:?}] = tap;
            }})()"
        );
        self.eval(&script).map(drop)
    }

    /// What a tap has recorded so far, at 48 kHz, and the wall-clock time in milliseconds at which its first sample
    /// was computed (the median over its clock readings, so that one late message moves nothing).
    ///
    /// # Errors
    /// If there is no such tap.
    pub fn tapped(&mut self, name: &str) -> Result<(Vec<f32>, f64)> {
        let script = format!(
            r"(async () => {{
                const {{ blocks, clock }} = window.taps[{name:?}];
                const first = blocks[0][0];
                const last = blocks[blocks.length - 1][0] + 128;
                const samples = new Int16Array(last - first);
                for (const [frame, data] of blocks)
                    for (let i = 0; i < data.length; i++)
                        samples[frame - first + i] = Math.max(-32768, Math.min(32767, Math.round(data[i] * 32767)));
                const starts = clock.map(([frame, at]) => at - (frame - first) / 48).sort((a, b) => a - b);
                const blob = new Blob([samples]);
                const text = await new Promise((done) => {{
                    const reader = new FileReader();
                    reader.onload = () => done(reader.result);
                    reader.readAsDataURL(blob);
                }});
                return [text.slice(text.indexOf(',') + 1), starts[starts.length >> 1]];
            }})()"
        );
        let answer = self.eval(&script)?;
        let bytes = BASE64_STANDARD.decode(answer[0].as_str().context("samples")?)?;
        let samples =
            bytes.chunks_exact(2).map(|b| f32::from(i16::from_le_bytes([b[0], b[1]])) / 32_768.0).collect();
        Ok((samples, answer[1].as_f64().context("a time")?))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
