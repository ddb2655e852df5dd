//! Independent players: what ffmpeg and curl make of every address.

use std::collections::BTreeMap;
use std::process::Stdio;

use crate::common::*;
use tokio::process::Command;

/// Decodes an address to mono at 48 kHz; returns the samples and what ffmpeg had to say about it.
async fn decode(url: &str) -> (Vec<i16>, String) {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-hide_banner", "-v", "repeat+warning"]);
    command.args(["-protocol_whitelist", "file,http,tcp", "-i", url]);
    command.args(["-f", "s16le", "-ac", "1", "-ar", "48000", "-"]).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(NEVER, command.output()).await.expect("it ends");
    let output = output.expect("ffmpeg is installed (cargo xtask test does that)");
    assert!(output.status.success(), "{url}: {}", String::from_utf8_lossy(&output.stderr));
    let samples = output.stdout.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect();
    (samples, String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Share of the energy that lies at 600 Hz, by the Goertzel algorithm over 100 ms.
fn purity(samples: &[i16]) -> f64 {
    let turn = std::f64::consts::TAU * 600.0 / 48_000.0;
    let (mut re, mut im, mut energy) = (0.0, 0.0, 0.0);
    for (n, sample) in samples.iter().enumerate() {
        let sample = f64::from(*sample);
        re += sample * (turn * n as f64).cos();
        im += sample * (turn * n as f64).sin();
        energy += sample * sample;
    }
    if energy == 0.0 { 0.0 } else { 2.0 * (re * re + im * im) / (energy * samples.len() as f64) }
}

/// The tone is there from beginning to end, without holes and as long as it should be.
fn check(name: &str, (samples, said): &(Vec<i16>, String), parts: usize) {
    // ffmpeg 5.1 reads the init of every fMP4 playlist twice and says so.
    let said: Vec<_> = said.lines().filter(|line| !line.contains("duplicated MOOV")).collect();
    assert!(said.is_empty(), "{name}: {said:?}");
    let heard = samples.len() as f64 / 48_000.0;
    assert!((heard - seconds(parts)).abs() < 0.06, "{name}: {heard} s of {} s", seconds(parts));
    // Encoders and decoders fade in and out; where the tone was repeated, what they remember jumps.
    for (window, piece) in samples[4_800..samples.len() - 4_800].chunks_exact(4_800).enumerate() {
        assert!(purity(piece) > 0.93, "{name}: {} at {window}00 ms", purity(piece));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ffmpeg_plays_every_address_without_a_warning() {
    let (_directory, mut studio, edge) = on_air(0).await;
    let parts = tone().len();
    studio.air(tone());
    studio.heard_by("edge-0").await;
    let (push, files) = (edge.push, edge.files);
    let pushed = ["opus-24.mp4", "opus-48.mp4", "opus-24.ogg", "opus-48.ogg", "mp3-64.mp3"].map(|name| {
        let url = format!("http://{push}/live/talk/{name}?from=0");
        (name, tokio::spawn(async move { decode(&url).await }))
    });
    let joined = async {
        while edge.figure("minassa_edge_listeners").await < pushed.len() as u64 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(NEVER, joined).await.unwrap();
    studio.end();
    let mut heard = BTreeMap::new();
    for (name, playing) in pushed {
        let decoded = playing.await.unwrap();
        check(name, &decoded, parts);
        heard.insert(name, decoded.0);
    }
    for name in [
        "live/talk/opus-24.m3u8",
        "live/talk/opus-48.m3u8",
        "live/talk/mp3-64.m3u8",
        "live/talk/index.m3u8",
        "e/talk/recording.m3u8",
        "e/talk/recording.mp3-64.m3u8",
        "e/talk/recording.opus-24.mp4",
        "e/talk/recording.opus-48.mp4",
        "e/talk/recording.ogg",
        "e/talk/recording.mp3",
    ] {
        let decoded = decode(&format!("http://{files}/{name}")).await;
        check(name, &decoded, parts);
        // The frame that says how long it is shifts nothing: sample for sample what was pushed, which has none.
        if name == "e/talk/recording.mp3" {
            assert!(decoded.0 == heard["mp3-64.mp3"]);
        }
    }
    edge.stop().await;
}

/// ffmpeg knows no parts, but a part is a segment like any other: those that a playlist lists, in a playlist of their
/// own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ffmpeg_plays_the_parts_one_by_one() {
    let (directory, mut studio, edge) = on_air(0).await;
    studio.air(tone().into_iter().take(56));
    studio.heard_by("edge-0").await;
    for rendition in model::Rendition::ALL {
        let base = format!("http://{}/live/talk", edge.files);
        let live = edge.get_file(&format!("/live/talk/{rendition}.m3u8")).await.text().await;
        let live = formats::hls::MediaPlaylist::parse(&live).unwrap();
        let mut text = String::from("#EXTM3U\n#EXT-X-VERSION:6\n#EXT-X-TARGETDURATION:1\n");
        if let Some(init) = live.init_uri {
            text.push_str(&format!("#EXT-X-MAP:URI=\"{base}/{init}\"\n"));
        }
        let parts = live.low_latency.unwrap().parts;
        parts.iter().for_each(|part| text.push_str(&format!("#EXTINF:0.480,\n{base}/{}\n", part.uri)));
        text.push_str("#EXT-X-ENDLIST\n");
        let path = directory.path().join(format!("{rendition}.m3u8"));
        std::fs::write(&path, text).unwrap();
        assert_eq!(parts.len(), 24, "{rendition}");
        let (samples, mut said) = decode(path.to_str().unwrap()).await;
        if !rendition.is_cmaf() {
            // It holds a frame back at each tag, finds then that the tag's time is that frame's, and says so; with
            // segments of 3.84 s it does not.
            said = said.lines().filter(|line| !line.contains("non monotonically increasing dts")).collect();
        }
        check(rendition.name(), &(samples, said), parts.len());
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ffmpeg_plays_a_live_playlist_to_its_end() {
    let (_directory, mut studio, edge) = on_air(0).await;
    // The tone has whole periods in a part, so it goes on where it is repeated.
    let mut frames = std::iter::repeat_with(tone).take(4).flatten();
    studio.air(frames.by_ref().take(176));
    studio.heard_by("edge-0").await;
    let playing = ["opus-48.m3u8", "mp3-64.m3u8"].map(|name| {
        let url = format!("http://{}/live/talk/{name}", edge.files);
        (name, tokio::spawn(async move { decode(&url).await }))
    });
    // Both have taken the playlist and the newest three segments, one of them an init too; looking is an answer too.
    let begun = async {
        let mut looks = 1;
        while edge.figure("minassa_edge_file_answers_total{status=\"2xx\"}").await < looks + 9 {
            looks += 1;
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(NEVER, begun).await.unwrap();
    studio.air(frames);
    studio.heard_by("edge-0").await;
    studio.end();
    for (name, playing) in playing {
        // It begins three segments before the end of what there was.
        check(name, &playing.await.unwrap(), 4 * 61 - (176 - 3 * 8));
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_files_door_speaks_http_2_and_the_push_door_does_not() {
    let (_directory, _studio, edge) = on_air(10).await;
    for (address, path, expected) in [
        (edge.files, "live/talk/index.m3u8", "2 200"),
        (edge.files, "live/talk/opus-48/3.m4s", "2 200"),
        (edge.files, "e/talk/recording.mp3", "2 200"),
        (edge.push, "live/talk/nothing", "0 000"),
    ] {
        let mut command = Command::new("curl");
        command.args([
            "-s",
            "--http2-prior-knowledge",
            "-o",
            "/dev/null",
            "-w",
            "%{http_version} %{http_code}",
        ]);
        command.arg(format!("http://{address}/{path}")).stdin(Stdio::null()).kill_on_drop(true);
        let output = tokio::time::timeout(NEVER, command.output()).await.unwrap().expect("curl is installed");
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{path}");
    }
    edge.stop().await;
}
