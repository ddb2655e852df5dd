//! The mix before it is encoded, kept as a WAV file where the configuration asks for it.
//!
//! It is a master for later editing, and what tests compare the renditions with. It is no part of the recording: it
//! is written by a thread of its own through a bounded queue, not synchronised, and a full queue or a failing disk
//! costs silence in it (counted), nothing else.

use std::fs::File;
use std::io::{self, BufWriter, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use model::{Epoch, EventSlug, MediaTime, OPUS_FRAME_SAMPLES, SAMPLE_RATE};

use crate::counters;

/// Frames that may wait: 5 s.
const QUEUE: usize = 250;
/// Bytes of the header of a WAV file with 16-bit PCM.
const HEADER: usize = 44;

type Frame = [f32; OPUS_FRAME_SAMPLES];

/// Where the frames of one incarnation go. Dropping it completes the file.
#[derive(Debug)]
pub(crate) struct MixKeeper {
    frames: SyncSender<(MediaTime, Frame)>,
}

impl MixKeeper {
    /// Begins `recordings/{event}/mix-{epoch}.wav`, whose first sample is the one at `first`. The caller's thread
    /// touches no disk.
    ///
    /// # Errors
    /// If the thread cannot be had.
    pub(crate) fn start(data: &Path, event: &EventSlug, epoch: Epoch, first: MediaTime) -> io::Result<Self> {
        let directory = data.join("recordings").join(event.as_str());
        let (frames, queue) = sync_channel(QUEUE);
        std::thread::Builder::new().name("mix".into()).spawn(move || {
            let written = std::fs::create_dir_all(&directory)
                .and_then(|()| File::create(directory.join(format!("mix-{}.wav", epoch.0))))
                .and_then(|file| write(&queue, BufWriter::new(file), first));
            if let Err(error) = written {
                tracing::warn!(%error, "the mix is not kept any further");
            }
        })?;
        Ok(Self { frames })
    }

    /// Keeps a frame.
    pub(crate) fn push(&self, at: MediaTime, frame: &Frame) {
        if self.frames.try_send((at, *frame)).is_err() {
            counters::MIX_DROPPED.increment();
        }
    }
}

fn write(
    queue: &Receiver<(MediaTime, Frame)>,
    mut file: BufWriter<File>,
    first: MediaTime,
) -> io::Result<()> {
    // Until it is complete the header promises as much as it can; players read to the end of the file.
    file.write_all(&header(u32::MAX - HEADER as u32))?;
    let mut next = first;
    for (at, frame) in queue {
        // What the queue did not take is silence, so that everything else stays in its place.
        for _ in 0..at.since(next) {
            file.write_all(&[0; 2])?;
        }
        for sample in frame {
            file.write_all(&((sample.clamp(-1.0, 1.0) * 32_767.0) as i16).to_le_bytes())?;
        }
        next = at.plus(OPUS_FRAME_SAMPLES as u64);
        // A reader beside it sees whole frames.
        file.flush()?;
    }
    let bytes = u32::try_from(next.since(first) * 2).unwrap_or(u32::MAX - HEADER as u32);
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&header(bytes))?;
    file.flush()
}

/// RIFF/WAVE with one `fmt ` and one `data` chunk: mono, 48 kHz, 16 bit.
fn header(data: u32) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    let mut at = 0;
    for field in [
        b"RIFF".as_slice(),
        &data.saturating_add(HEADER as u32 - 8).to_le_bytes(),
        b"WAVEfmt ",
        &16_u32.to_le_bytes(),
        &1_u16.to_le_bytes(),
        &1_u16.to_le_bytes(),
        &SAMPLE_RATE.to_le_bytes(),
        &(SAMPLE_RATE * 2).to_le_bytes(),
        &2_u16.to_le_bytes(),
        &16_u16.to_le_bytes(),
        b"data",
        &data.to_le_bytes(),
    ] {
        header[at..at + field.len()].copy_from_slice(field);
        at += field.len();
    }
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_queue_missed_is_silence_in_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mix.wav");
        let (frames, queue) = sync_channel(4);
        let first = MediaTime::from_samples(960);
        frames.send((first, [0.5; OPUS_FRAME_SAMPLES])).unwrap();
        frames.send((first.plus(1_920), [-0.5; OPUS_FRAME_SAMPLES])).unwrap();
        drop(frames);
        write(&queue, BufWriter::new(File::create(&path).unwrap()), first).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes[..HEADER], header(3 * 1_920));
        assert_eq!(bytes.len(), HEADER + 3 * 1_920);
        assert!(bytes[HEADER + 1_920..][..1_920].iter().all(|byte| *byte == 0));
    }
}
