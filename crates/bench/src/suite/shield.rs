//! Keeps others off the servers' core while it is measured.

use std::fs;

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Tasks that were moved off a core, to be let back when this is dropped.
///
/// What a core does is told as the time in which it is not idle. On a machine that does something else besides, some
/// milliseconds a second of that are nobody's who is measured, and more of them fall to whoever leaves the core idle more
/// often.
#[derive(Debug)]
pub(crate) struct Shield {
    moved: Vec<(Pid, CpuSet)>,
}

impl Shield {
    /// Moves every task off `core` that may be moved. Those that may not stay: others' without the right to it, and the
    /// kernel's that belong to the core.
    pub(crate) fn raise(core: usize) -> Self {
        let mut moved = Vec::new();
        for task in tasks() {
            let Ok(before) = sched_getaffinity(Some(task)) else { continue };
            let mut without = before;
            without.unset(core);
            let is_free = before.is_set(core) && without.count() > 0;
            if is_free && sched_setaffinity(Some(task), &without).is_ok() {
                moved.push((task, before));
            }
        }
        Self { moved }
    }

    /// How many were moved.
    pub(crate) fn moved(&self) -> usize {
        self.moved.len()
    }
}

impl Drop for Shield {
    fn drop(&mut self) {
        for (task, before) in &self.moved {
            // Whoever has ended meanwhile needs nothing.
            let _ = sched_setaffinity(Some(*task), before);
        }
    }
}

/// All tasks of all processes, but ours, which are tied to their cores in any case.
fn tasks() -> Vec<Pid> {
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
        let shield = Shield::raise(core);
        let during = sched_getaffinity(Some(pid)).unwrap();
        drop(shield);
        let after = sched_getaffinity(Some(pid)).unwrap();
        other.kill().unwrap();
        other.wait().unwrap();
        // With one core there is nowhere to move to.
        assert_eq!(during.is_set(core), before.count() == 1);
        assert_eq!(after, before);
    }
}
