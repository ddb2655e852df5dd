use minassa_formats::mp3::{FrameHeader, Frames, Mp3Error, MpegVersion, info_frame, part_frames};
use model::{MP3_FRAME_SAMPLES, MP3_FRAMES_PER_PART};

use crate::audio::{correlation, mp3, samples, voice};
use crate::ffmpeg::{decode_file, decode_pipe, probe};

#[test]
fn what_the_encoder_makes_is_read_frame_by_frame() {
    let frames = mp3(&voice(samples(2)));
    let stream = frames.concat();
    let read: Vec<_> = Frames::new(&stream).map(Result::unwrap).collect();
    assert_eq!(read.len(), 2 * MP3_FRAMES_PER_PART);
    for (frame, bytes) in read.iter().zip(&frames) {
        let header = FrameHeader {
            version: MpegVersion::V1,
            bit_rate: 64_000,
            sample_rate: 48_000,
            channels: 1,
            samples: MP3_FRAME_SAMPLES as u32,
            length: 192,
            protected: frame.header.protected,
        };
        assert_eq!((frame.header, frame.bytes), (header, &bytes[..]));
        assert_eq!(frame.main_data_begin(), 0);
    }
    let part = frames[..MP3_FRAMES_PER_PART].concat();
    assert_eq!(part_frames(&part).unwrap(), frames[..MP3_FRAMES_PER_PART]);
}

#[test]
fn ffmpeg_plays_from_any_part() {
    let frames = mp3(&voice(samples(6)));
    let whole = decode_pipe(&frames.concat(), &[]);
    assert_eq!(whole.len(), samples(6));
    for first in 1..6 {
        let joined = decode_pipe(&frames[first * MP3_FRAMES_PER_PART..].concat(), &[]);
        assert_eq!(joined.len(), samples(6 - first as u64));
        // The first frame lacks the overlap of the one before it.
        let [late, ours] = [&joined[1_152..], &whole[samples(first as u64) + 1_152..]];
        let alike = correlation(late, ours);
        assert!(alike > 0.999, "from part {first}: correlation {alike}");
    }
}

/// Without the table ffmpeg warns that it estimates the duration.
#[test]
fn ffmpeg_knows_the_duration_of_a_download() {
    let audio = mp3(&voice(samples(6))).concat();
    let info = info_frame(6 * MP3_FRAMES_PER_PART as u32, audio.len() as u32);
    let frame = Frames::new(&info).next().unwrap().unwrap();
    assert_eq!((frame.bytes, frame.main_data_begin()), (&info[..], 0));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("recording.mp3");
    std::fs::write(&path, [&info[..], &audio].concat()).unwrap();
    assert_eq!(decode_file(&path, &[]).len(), samples(6));
    assert_eq!(probe(&path, "format=duration").trim(), "duration=2.880000");
}

#[test]
fn headers_of_all_versions_are_read() {
    let check = |bytes: [u8; 4], version, bit_rate, sample_rate, channels, samples, length| {
        let protected = bytes[1] & 1 == 0;
        let header = FrameHeader { version, bit_rate, sample_rate, channels, samples, length, protected };
        assert_eq!(FrameHeader::parse(&bytes), Ok(header), "{bytes:x?}");
    };
    check([0xff, 0xfb, 0x90, 0x64], MpegVersion::V1, 128_000, 44_100, 2, 1_152, 417);
    check([0xff, 0xfb, 0x92, 0x64], MpegVersion::V1, 128_000, 44_100, 2, 1_152, 418);
    check([0xff, 0xfa, 0xe8, 0xc0], MpegVersion::V1, 320_000, 32_000, 1, 1_152, 1_440);
    check([0xff, 0xf3, 0x84, 0xc0], MpegVersion::V2, 64_000, 24_000, 1, 576, 192);
    check([0xff, 0xe3, 0x18, 0xc0], MpegVersion::V25, 8_000, 8_000, 1, 576, 72);
}

#[test]
fn what_is_no_frame_is_named() {
    let check = |bytes: &[u8], expected| assert_eq!(FrameHeader::parse(bytes), Err(expected), "{bytes:x?}");
    check(&[0xff, 0xfb, 0x90], Mp3Error::Truncated);
    check(b"ID3\x04", Mp3Error::NoSync);
    check(&[0xff, 0xdb, 0x90, 0x64], Mp3Error::NoSync);
    check(&[0xff, 0xfd, 0x90, 0x64], Mp3Error::NotLayerThree); // Layer II
    check(&[0xff, 0xf9, 0x90, 0x64], Mp3Error::NotLayerThree); // ADTS
    check(&[0xff, 0xeb, 0x90, 0x64], Mp3Error::NotLayerThree); // A reserved version.
    check(&[0xff, 0xfb, 0x00, 0x64], Mp3Error::BadRate);
    check(&[0xff, 0xfb, 0xf0, 0x64], Mp3Error::BadRate);
    check(&[0xff, 0xfb, 0x9c, 0x64], Mp3Error::BadRate);

    let frames = mp3(&voice(samples(2)));
    let part = frames[..20].concat();
    assert_eq!(part_frames(&frames[..19].concat()), Err(Mp3Error::WrongCount(19)));
    assert_eq!(part_frames(&frames.concat()), Err(Mp3Error::WrongCount(40)));
    assert_eq!(part_frames(&part[..part.len() - 1]), Err(Mp3Error::Truncated));
    let mut stereo = part.clone();
    stereo[3] &= 0x3f;
    assert_eq!(part_frames(&stereo), Err(Mp3Error::WrongFormat));
    let mut leaning = part;
    leaning[192 + if frames[1][1] & 1 == 0 { 6 } else { 4 }] = 1;
    assert_eq!(part_frames(&leaning), Err(Mp3Error::Dependent));
}
