//! ffmpeg plays everything, what it decodes is the programme, and every way carries the same bytes: must hold 4 and 5.

use std::time::Duration;

use acceptance::ffmpeg::{self, Heard};
use acceptance::server::Server;
use acceptance::signal::{RATE, band_envelope, best_lag, envelope_distance};
use acceptance::{quantile, wait_for};
use anyhow::{Context as _, Result, ensure};
use formats::mp4::parse_part;
use model::Rendition;
use rehearse::{Clip, PushConfig, PushListener, Speaker, SpeakerConfig};

const BINARY: &str = env!("CARGO_BIN_EXE_minassa");

/// Seconds of each way that are listened to: a minute in the long trials.
fn seconds() -> f64 {
    acceptance::repeats(1).min(3) as f64 * 20.0
}

/// A show on air with both built-in voices, whose mix is kept.
fn show() -> Result<(Server, String, Vec<Speaker>)> {
    let server = Server::start_with(BINARY, 1, &[], &[("MINASSA_ORIGIN_KEEP_MIX", "true")])?;
    let event = server.create_event(3.0, &[])?;
    let whip = format!("http://{}/whip/{}", server.door("stage")?, event.event);
    let mut speakers = Vec::new();
    for (invite, voice) in event.speaker_invites.iter().zip([
        include_bytes!("../../assets/voice-ar.opus").as_slice(),
        include_bytes!("../../assets/voice-en.opus").as_slice(),
    ]) {
        speakers.push(Speaker::start(SpeakerConfig::new(&whip, invite, Clip::decode(voice)?))?);
    }
    for speaker in &speakers {
        ensure!(speaker.wait_connected(Duration::from_secs(15)), "{:?}", speaker.state());
    }
    server.wait_state(&event.event, "live", Duration::from_secs(20))?;
    Ok((server, event.event, speakers))
}

/// The mix before it was encoded, as 16-bit mono WAV, without its header.
fn mix(server: &Server, event: &str) -> Result<Vec<f32>> {
    let bytes =
        std::fs::read(server.data().join(format!("recordings/{event}/mix-1.wav"))).context("the kept mix")?;
    Ok(bytes[44..].chunks_exact(2).map(|b| f32::from(i16::from_le_bytes([b[0], b[1]])) / 32_768.0).collect())
}

#[test]
fn ffmpeg_plays_every_way_and_hears_the_programme() -> Result<()> {
    let (server, event, _speakers) = show()?;
    let (push, files) = (server.door("push")?, server.door("files")?);
    // A live playlist is joined three segments from its end.
    std::thread::sleep(Duration::from_secs(13));
    let ways = [
        ("pushed opus-48", format!("http://{push}/live/{event}/opus-48.mp4")),
        ("pushed opus-24", format!("http://{push}/live/{event}/opus-24.mp4")),
        ("HLS opus-48", format!("http://{files}/live/{event}/opus-48.m3u8")),
        ("HLS opus-24", format!("http://{files}/live/{event}/opus-24.m3u8")),
        ("HLS mp3-64", format!("http://{files}/live/{event}/mp3-64.m3u8")),
        ("Ogg/Opus", format!("http://{push}/live/{event}/opus-48.ogg")),
        ("MP3", format!("http://{push}/live/{event}/mp3-64.mp3")),
    ];
    let length = seconds();
    let heard: Vec<(&str, Heard)> = std::thread::scope(|scope| {
        let players: Vec<_> = ways
            .iter()
            .map(|(name, address)| (*name, scope.spawn(move || ffmpeg::listen(&[], address, length))))
            .collect();
        players
            .into_iter()
            .map(|(name, player)| Ok((name, player.join().expect("a player")?)))
            .collect::<Result<_>>()
    })?;
    // The mix must hold the end of what was heard.
    std::thread::sleep(Duration::from_secs(2));
    let mix = mix(&server, &event)?;
    let mut places = Vec::new();
    for (name, heard) in &heard {
        assert!(heard.warnings.is_empty(), "{name}: ffmpeg warns: {:?}", heard.warnings);
        let samples = &heard.samples;
        assert!(samples.len() as f64 >= (length - 1.0) * RATE as f64, "{name}: {} samples", samples.len());
        // The first second may hold what a decoder needs to settle.
        let body = &samples[RATE..];
        let (lag, whole) = best_lag(&mix, body, mix.len());
        let at = usize::try_from(-lag).with_context(|| format!("{name} lies before the mix"))?;
        let reference = &mix[at..];
        let fits: Vec<f64> = body
            .chunks_exact(RATE)
            .zip(reference.chunks_exact(RATE))
            .filter(|(_, said)| acceptance::signal::rms_db(said) > -50.0)
            .map(|(got, said)| acceptance::signal::coefficient(got, said))
            .collect();
        let count = body.len().min(reference.len());
        let distance = envelope_distance(&band_envelope(&body[..count]), &band_envelope(&reference[..count]));
        println!(
            "{name}: {} s, no warning; correlation with the mix {whole:.3}, in 1 s windows at least {:.3} (median {:.3}); band envelope {distance:.1} dB away",
            samples.len() / RATE,
            quantile(&fits, 0.0),
            quantile(&fits, 0.5),
        );
        if name.contains("opus-48") || *name == "Ogg/Opus" {
            assert!(quantile(&fits, 0.0) >= 0.9, "{name}: {fits:?}");
        } else {
            assert!(distance <= 3.0, "{name}");
        }
        places.push((*name, at));
    }
    Ok(())
}

#[test]
fn every_way_carries_the_same_bytes() -> Result<()> {
    let (server, event, speakers) = show()?;
    let (push, files) = (server.door("push")?, server.door("files")?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut pushed = Vec::new();
    runtime.block_on(async {
        let listeners: Vec<_> = [Rendition::Opus24, Rendition::Opus48]
            .into_iter()
            .map(|rendition| {
                let address = format!("http://{push}/live/{event}/{rendition}.mp4");
                (rendition, PushListener::start(PushConfig { keep_bytes: true, ..PushConfig::new(address) }))
            })
            .collect();
        for (rendition, listener) in listeners {
            listener
                .wait(Duration::from_secs(40), |r| (r.parts.len() >= 26).then_some(()))
                .await
                .context("26 parts")?;
            pushed.push((rendition, listener.stop().await));
        }
        anyhow::Ok(())
    })?;
    let get = |path: &str| -> Result<Vec<u8>> {
        Ok(ureq::get(format!("http://{files}{path}"))
            .call()
            .with_context(|| path.to_owned())?
            .into_body()
            .read_to_vec()?)
    };
    // Publishing does not wait for the disk, so the newest part may come to it a moment after it was heard.
    let last = pushed.iter().filter_map(|(_, report)| report.newest()).max().context("parts")?;
    let recording = wait_for("the recording of what was heard", Duration::from_secs(10), || {
        let recording = archive::Recording::open(&[server.data().to_path_buf()], &event.parse()?)?;
        Ok(recording.part_location(Rendition::Opus24, last).is_some().then_some(recording))
    })?;
    let mut compared = 0;
    for (rendition, report) in &pushed {
        for part in &report.parts {
            let bytes = part.bytes.as_ref().context("kept bytes")?;
            assert_eq!(get(&format!("/live/{event}/{rendition}/{}.m4s", part.number))?, bytes.as_ref());
            let place = recording.part_location(*rendition, part.number).context("recorded")?;
            let file = std::fs::read(&place.path)?;
            assert_eq!(&file[place.offset as usize..][..place.length as usize], bytes.as_ref());
            compared += 1;
        }
        // A whole segment is the parts one after another.
        let first =
            report.parts.iter().position(|p| p.number.index_in_segment() == 0).context("a segment")?;
        let parts: Vec<u8> =
            report.parts[first..first + 8].iter().flat_map(|p| p.bytes.clone().unwrap()).collect();
        let segment = report.parts[first].number.segment();
        assert_eq!(get(&format!("/live/{event}/{rendition}/s{segment}.m4s"))?, parts);
        let init = report.init.as_ref().context("init")?;
        assert_eq!(
            get(&format!("/live/{event}/{rendition}/{}", formats::mp4::init_name(init)))?,
            init.as_ref()
        );
    }
    assert_eq!(pushed[0].1.init, pushed[1].1.init, "one init for both renditions");
    println!("{compared} parts byte-identical by push, HLS and recording");

    // The same instants in all: part n of each begins at n × 480 ms.
    for (_, report) in &pushed {
        for part in &report.parts {
            let parsed = parse_part(part.bytes.as_ref().context("kept bytes")?)?;
            assert_eq!(parsed.decode_time, part.number.start());
        }
    }
    drop(speakers);
    Ok(())
}

#[test]
fn the_renditions_lie_on_one_another() -> Result<()> {
    let (server, event, _speakers) = show()?;
    std::thread::sleep(Duration::from_secs(10));
    let folder = tempfile::tempdir()?;
    let recording = archive::Recording::open(&[server.data().to_path_buf()], &event.parse()?)?;
    let last = recording.parts().end.get() - 1;
    let mut decoded = Vec::new();
    for rendition in Rendition::ALL {
        // The same twelve parts of each, as a plain file that a plain decoder plays.
        let mut bytes = if rendition.is_cmaf() { formats::mp4::opus_init().to_vec() } else { Vec::new() };
        for number in last - 11..=last {
            bytes.extend(recording.read_part(rendition, model::PartNumber::new(number))?);
        }
        let path = folder.path().join(rendition.name()).with_extension(if rendition.is_cmaf() {
            "mp4"
        } else {
            "mp3"
        });
        std::fs::write(&path, bytes)?;
        decoded.push((rendition, ffmpeg::listen(&[], &path.display().to_string(), 60.0)?.samples));
    }
    for (rendition, samples) in &decoded {
        assert_eq!(samples.len(), 12 * 23_040, "{rendition}");
        let (lag, fit) = best_lag(&decoded[1].1, samples, RATE / 10);
        println!(
            "{rendition}: {lag} samples ({:.2} ms) from opus-48, correlation {fit:.3}",
            lag as f64 / 48.0
        );
        assert!(lag.unsigned_abs() <= 48 && fit > 0.9);
    }
    Ok(())
}

#[test]
fn an_mp3_stream_joined_at_any_part_decodes_from_that_part() -> Result<()> {
    let (server, event, _speakers) = show()?;
    let files = server.door("files")?;
    std::thread::sleep(Duration::from_secs(8));
    let folder = tempfile::tempdir()?;
    let recording = archive::Recording::open(&[server.data().to_path_buf()], &event.parse()?)?;
    let newest = recording.parts().end.get() - 1;
    let mp3 = |number: u64| -> Result<Vec<u8>> {
        Ok(ureq::get(format!("http://{files}/live/{event}/mp3-64/{number}.mp3"))
            .call()?
            .into_body()
            .read_to_vec()?)
    };
    let mut whole = Vec::new();
    for number in newest - 10..=newest {
        whole.extend(mp3(number)?);
    }
    let decode = |bytes: &[u8]| -> Result<Heard> {
        let path = folder.path().join("joined.mp3");
        std::fs::write(&path, bytes)?;
        let mut heard = ffmpeg::listen(&[], &path.display().to_string(), 60.0)?;
        // Bare frames announce no duration; a stream has none.
        heard.warnings.retain(|line| !line.contains("Estimating duration from bitrate"));
        Ok(heard)
    };
    let all = decode(&whole)?;
    assert!(all.warnings.is_empty(), "{:?}", all.warnings);
    let mut worst = 1.0_f64;
    for skip in 1..8 {
        let from = whole.len() / 11 * skip;
        let joined = decode(&whole[from..])?;
        assert!(joined.warnings.is_empty(), "{:?}", joined.warnings);
        assert_eq!(joined.samples.len(), (11 - skip) * 23_040, "no frame is lost");
        // The first frame lacks its predecessor's overlap; from the second on it is the same sound.
        let fit = acceptance::signal::coefficient(
            &joined.samples[2 * 1_152..],
            &all.samples[skip * 23_040 + 2 * 1_152..],
        );
        worst = worst.min(fit);
    }
    println!("MP3 joined at 7 parts: correlation with the whole at least {worst:.5}");
    assert!(worst > 0.999);
    Ok(())
}
