//! Keeps others off the servers' core while it is measured.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::{fs, io};

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};
use signal_hook::low_level::emulate_default_handler;

/// Tasks that were moved off a core, to be let back when this is dropped, or when this process is told to end.
///
/// What a core does is told as the time in which it is not idle. On a machine that does something else besides, some
/// milliseconds a second of that are nobody's who is measured, and more of them fall to whoever leaves the core idle more
/// often.
#[derive(Debug)]
pub(crate) struct Shield {
    tasks: Arc<Mutex<Tasks>>,
    signals: Handle,
}

#[derive(Debug, Default)]
struct Tasks {
    moved: Vec<(Pid, CpuSet)>,
    /// Those that were not on the core before.
    elsewhere: BTreeSet<i32>,
    core: usize,
}

impl Shield {
    /// Moves every task off `core` that may be moved. Those that may not stay: others' without the right to it, and the
    /// kernel's that belong to the core.
    ///
    /// # Errors
    /// If signals cannot be handled: who is told to end must not leave the machine as it is then.
    pub(crate) fn raise(core: usize) -> io::Result<Self> {
        let mut tasks = Tasks { core, ..Tasks::default() };
        for task in all_tasks() {
            let Ok(before) = sched_getaffinity(Some(task)) else { continue };
            if !before.is_set(core) {
                tasks.elsewhere.insert(task.as_raw_nonzero().get());
                continue;
            }
            let without = without(before, core);
            if without.count() > 0 && sched_setaffinity(Some(task), &without).is_ok() {
                tasks.moved.push((task, before));
            }
        }
        let tasks = Arc::new(Mutex::new(tasks));
        let mut ends = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
        let (signals, at_end) = (ends.handle(), Arc::clone(&tasks));
        std::thread::spawn(move || {
            if let Some(signal) = ends.forever().next() {
                at_end.lock().unwrap_or_else(PoisonError::into_inner).let_back();
                let _ = emulate_default_handler(signal);
            }
        });
        Ok(Self { tasks, signals })
    }

    /// How many were moved.
    pub(crate) fn moved(&self) -> usize {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).moved.len()
    }
}

impl Drop for Shield {
    fn drop(&mut self) {
        self.signals.close();
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).let_back();
    }
}

impl Tasks {
    fn let_back(&mut self) {
        let moved = std::mem::take(&mut self.moved);
        for (task, before) in &moved {
            // Whoever has ended meanwhile needs nothing.
            let _ = sched_setaffinity(Some(*task), before);
        }
        // Whoever was begun meanwhile by one that was moved has its cores, and no other reason to have them.
        for task in all_tasks() {
            let Ok(now) = sched_getaffinity(Some(task)) else { continue };
            if !self.elsewhere.contains(&task.as_raw_nonzero().get())
                && let Some((_, before)) = moved.iter().find(|(_, before)| without(*before, self.core) == now)
            {
                let _ = sched_setaffinity(Some(task), before);
            }
        }
    }
}

fn without(mut cores: CpuSet, core: usize) -> CpuSet {
    cores.unset(core);
    cores
}

/// All tasks of all processes, but ours, which are tied to their cores in any case.
fn all_tasks() -> Vec<Pid> {
    let numbers = |path: &str| -> Vec<i32> {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    };
    let ours = std::process::id();
    let others = numbers("/proc").into_iter().filter(|process| process.unsigned_abs() != ours);
    others.flat_map(|process| numbers(&format!("/proc/{process}/task"))).filter_map(Pid::from_raw).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn others_are_moved_and_let_back() {
        let mut other = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
        let pid = Pid::from_child(&other);
        let before = sched_getaffinity(Some(pid)).unwrap();
        let core = (0..CpuSet::MAX_CPU).find(|core| before.is_set(*core)).unwrap();
        let shield = Shield::raise(core).unwrap();
        let during = sched_getaffinity(Some(pid)).unwrap();
        // One that is begun meanwhile by one that was moved.
        let mut later = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
        let later_pid = Pid::from_child(&later);
        sched_setaffinity(Some(later_pid), &during).unwrap();
        drop(shield);
        let later_after = sched_getaffinity(Some(later_pid)).unwrap();
        later.kill().unwrap();
        later.wait().unwrap();
        let after = sched_getaffinity(Some(pid)).unwrap();
        other.kill().unwrap();
        other.wait().unwrap();
        // With one core there is nowhere to move to.
        assert_eq!(during.is_set(core), before.count() == 1);
        assert_eq!((after, later_after), (before, before));
    }
}
