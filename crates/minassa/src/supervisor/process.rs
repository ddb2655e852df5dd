//! One child process: started, listened to, signalled, waited for.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal};

/// Names the supervisor's process to its children.
pub const SUPERVISOR_PID: &str = "MINASSA_SUPERVISOR_PID";

/// A running child.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    /// The reading end of its heartbeat; `None` once its other end is closed.
    beats: Option<File>,
}

impl Process {
    /// Starts this very program anew with these arguments, in a process group of its own: a terminal's Ctrl-C is for
    /// the supervisor, which stops the roles in order.
    ///
    /// # Errors
    /// If there are no more pipes or processes.
    pub(super) fn start(arguments: &[OsString]) -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        fcntl_setfl(&read, OFlags::NONBLOCK)?;
        // Only this child inherits it: this thread alone starts children, and closes it again below.
        fcntl_setfd(&write, FdFlags::empty())?;
        let child = Command::new("/proc/self/exe")
            .arg0("minassa")
            .args(arguments)
            .env(backend::child::HEARTBEAT_FD, write.as_raw_fd().to_string())
            .env(SUPERVISOR_PID, std::process::id().to_string())
            .stdin(Stdio::null())
            .process_group(0)
            .spawn()?;
        drop(write);
        Ok(Self { child, beats: Some(File::from(read)) })
    }

    /// Its process id.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What becomes readable when it beats or is gone.
    pub(super) fn beats_fd(&self) -> Option<BorrowedFd<'_>> {
        self.beats.as_ref().map(AsFd::as_fd)
    }

    /// Takes the beats that have come; whether there were any.
    pub(super) fn take_beats(&mut self) -> bool {
        let mut any = false;
        let mut bytes = [0; 64];
        while let Some(beats) = &mut self.beats {
            match beats.read(&mut bytes) {
                Ok(0) => self.beats = None,
                Ok(_) => any = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => self.beats = None,
            }
        }
        any
    }

    /// How it ended, if it did.
    ///
    /// # Errors
    /// Never while nobody else waits for our children.
    pub(super) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Sends it a signal. That it is gone already is no error: its end will be noticed.
    pub(super) fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            kill_process(pid, signal).ok();
        }
    }
}

/// To be called first by a role: it dies with its supervisor. Returns false if the supervisor is gone already.
/// A role that was started by hand has none, and goes on.
///
/// # Errors
/// If the system cannot promise it.
pub fn bind_to_supervisor() -> io::Result<bool> {
    let Some(supervisor) = std::env::var(SUPERVISOR_PID).ok().and_then(|pid| pid.parse::<i32>().ok()) else {
        return Ok(true);
    };
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have died before the line above: then nobody will send the signal.
    Ok(getppid().is_some_and(|parent| parent.as_raw_nonzero().get() == supervisor))
}
