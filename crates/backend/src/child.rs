//! The sign of life a role gives its supervisor.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// Names the file descriptor of the pipe to write to.
pub const HEARTBEAT_FD: &str = "MINASSA_HEARTBEAT_FD";
/// Time between two beats.
pub const BEAT: Duration = Duration::from_millis(500);

/// Writes one byte twice a second to the pipe that the supervisor reads, as long as everything that was asked to
/// pulse does. Without a supervisor ([`HEARTBEAT_FD`] not set) it does nothing.
#[derive(Debug)]
pub struct Heartbeat {
    pipe: Option<File>,
    pulses: Pulses,
}

/// The pulse of one thread or task that must not hang. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Pulse {
    name: &'static str,
    silence: Duration,
    origin: Instant,
    /// Nanoseconds from `origin` to the last beat; 0 before the first.
    last: Arc<AtomicU64>,
}

impl Heartbeat {
    /// Finds the pipe.
    ///
    /// # Errors
    /// If [`HEARTBEAT_FD`] names no pipe that can be written to.
    pub fn from_env() -> io::Result<Self> {
        let pipe = match std::env::var(HEARTBEAT_FD) {
            Err(_) => None,
            Ok(value) => {
                let number: u32 = value.parse().map_err(|_| {
                    io::Error::new(
                        io::ErrorKind::InvalidInput,
                        format!("{HEARTBEAT_FD}={value:?} is no number"),
                    )
                })?;
                Some(open_pipe(Path::new(&format!("/proc/self/fd/{number}")))?)
            }
        };
        Ok(Self::new(pipe))
    }

    fn new(pipe: Option<File>) -> Self {
        Self { pipe, pulses: Pulses { origin: Instant::now(), pulses: Arc::default() } }
    }

    /// Something that must pulse at least every `silence`, or the beats stop and the supervisor kills the process.
    /// It counts from its first [`Pulse::beat`].
    pub fn pulse(&self, name: &'static str, silence: Duration) -> Pulse {
        self.pulses.pulse(name, silence)
    }

    /// A way to ask for more pulses after [`Self::spawn`].
    pub fn pulses(&self) -> Pulses {
        self.pulses.clone()
    }

    /// Begins to beat on the current runtime. `orphaned` is cancelled when the supervisor is gone.
    pub fn spawn(self, orphaned: CancellationToken) -> tokio::task::JoinHandle<()> {
        self.spawn_every(BEAT, orphaned)
    }

    fn spawn_every(self, beat: Duration, orphaned: CancellationToken) -> tokio::task::JoinHandle<()> {
        tokio::spawn(async move {
            let Some(mut pipe) = self.pipe else { return };
            let mut beats = interval(beat);
            beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                beats.tick().await;
                if let Some(name) = self.pulses.silent(Instant::now()) {
                    tracing::error!(name, "no pulse: the supervisor will end this process");
                    continue;
                }
                match pipe.write(&[1]) {
                    // Nobody reads for a while: the supervisor is stopped, which is no reason to stop too.
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => {
                        tracing::warn!(%error, "the supervisor is gone");
                        orphaned.cancel();
                        return;
                    }
                    Ok(_) => {}
                }
            }
        })
    }
}

/// Gives out pulses of a heartbeat that beats already.
#[derive(Clone, Debug)]
pub struct Pulses {
    origin: Instant,
    pulses: Arc<Mutex<Vec<Pulse>>>,
}

impl Pulses {
    /// As [`Heartbeat::pulse`].
    pub fn pulse(&self, name: &'static str, silence: Duration) -> Pulse {
        let pulse = Pulse { name, silence, origin: self.origin, last: Arc::default() };
        self.lock().push(pulse.clone());
        pulse
    }

    fn silent(&self, now: Instant) -> Option<&'static str> {
        self.lock().iter().find(|pulse| pulse.is_silent(now)).map(|pulse| pulse.name)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Pulse>> {
        // Nothing that can panic happens under the lock.
        self.pulses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pulse {
    /// I am alive.
    pub fn beat(&self) {
        let nanos = u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.last.store(nanos.max(1), Ordering::Relaxed);
    }

    /// I end as I should, and will pulse no more.
    pub fn retire(&self) {
        self.last.store(0, Ordering::Relaxed);
    }

    fn is_silent(&self, now: Instant) -> bool {
        let last = self.last.load(Ordering::Relaxed);
        last != 0 && now.saturating_duration_since(self.origin + Duration::from_nanos(last)) > self.silence
    }
}

/// Opens the descriptor a second time: the pipe is the same, and this end does not block.
fn open_pipe(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NONBLOCK.bits();
    let pipe =
        OpenOptions::new().write(true).custom_flags(flags.cast_signed()).open(path).map_err(|error| {
            io::Error::new(error.kind(), format!("{HEARTBEAT_FD}: {}: {error}", path.display()))
        })?;
    if pipe.metadata()?.file_type().is_fifo() {
        Ok(pipe)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{HEARTBEAT_FD} is no pipe")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::os::fd::AsRawFd as _;

    fn heartbeat(writer: &impl std::os::fd::AsRawFd) -> Heartbeat {
        let path = format!("/proc/self/fd/{}", writer.as_raw_fd());
        Heartbeat::new(Some(open_pipe(Path::new(&path)).unwrap()))
    }

    #[tokio::test]
    async fn it_beats_until_the_supervisor_is_gone() {
        let (mut reader, writer) = io::pipe().unwrap();
        let orphaned = CancellationToken::new();
        let beating = heartbeat(&writer).spawn_every(Duration::from_millis(1), orphaned.clone());
        drop(writer);
        let supervisor = tokio::task::spawn_blocking(move || {
            let mut bytes = [0; 3];
            reader.read_exact(&mut bytes).map(|()| bytes)
        });
        assert_eq!(supervisor.await.unwrap().unwrap(), [1; 3]);
        beating.await.unwrap();
        assert!(orphaned.is_cancelled());
    }

    #[test]
    fn who_has_begun_to_pulse_must_go_on() {
        let heartbeat = Heartbeat::new(None);
        let pulse = heartbeat.pulse("media", Duration::from_secs(2));
        let later = Instant::now() + Duration::from_secs(60);
        assert_eq!(heartbeat.pulses.silent(later), None, "not begun yet");
        pulse.beat();
        assert_eq!(heartbeat.pulses.silent(Instant::now()), None);
        assert_eq!(heartbeat.pulses.silent(later), Some("media"));
        pulse.retire();
        assert_eq!(heartbeat.pulses.silent(later), None);
    }

    #[test]
    fn only_a_pipe_will_do() {
        let file = tempfile::tempfile().unwrap();
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        assert!(open_pipe(Path::new(&path)).is_err());
        assert!(open_pipe(Path::new("/proc/self/fd/999999")).is_err());
    }
}
