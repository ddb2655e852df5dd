//! What comes out, said as it is found and kept as Markdown.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use rehearse::crowd::Machine;

/// A page of results.
#[derive(Debug)]
pub(crate) struct Sheet {
    text: String,
}

impl Sheet {
    /// Begins with when, where and what.
    pub(crate) fn new(title: &str) -> Self {
        let machine = Machine::this();
        let mut sheet = Self { text: String::new() };
        sheet.say(&format!("# {title}\n"));
        sheet.say(&format!(
            "{} · {} cores of {}, {} MiB · Linux {} · commit {}\n",
            jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC"),
            machine.cores,
            machine.model,
            machine.memory_mib,
            machine.kernel,
            commit(),
        ));
        sheet
    }

    /// A line, or several.
    pub(crate) fn say(&mut self, line: &str) {
        // If nobody listens it is in the file all the same.
        writeln!(std::io::stdout(), "{line}").ok();
        self.text.push_str(line);
        self.text.push('\n');
    }

    /// A heading.
    pub(crate) fn heading(&mut self, title: &str) {
        self.say(&format!("\n## {title}\n"));
    }

    /// A table.
    pub(crate) fn table(&mut self, head: &[&str], rows: &[Vec<String>]) {
        let mut text = format!("| {} |\n|{}\n", head.join(" | "), " --- |".repeat(head.len()));
        for row in rows {
            let _ = writeln!(text, "| {} |", row.join(" | "));
        }
        self.say(&text);
    }

    /// A line of what must hold: what was found, the limit, and whether it holds. `None`: it could not be judged.
    pub(crate) fn verdict(&mut self, what: &str, found: &str, limit: &str, holds: Option<bool>) {
        let word = match holds {
            Some(true) => "holds",
            Some(false) => "**does not hold**",
            None => "not judged",
        };
        self.say(&format!("- {what}: {found}; allowed {limit}: {word}"));
    }

    /// Writes it.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        std::fs::write(path, &self.text).with_context(|| format!("cannot write {}", path.display()))?;
        writeln!(std::io::stderr(), "written: {}", path.display()).ok();
        Ok(())
    }
}

fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output =
            Command::new("git").args(arguments).output().ok().filter(|output| output.status.success());
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let name = git(&["rev-parse", "--short", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    match git(&["status", "--porcelain", "--untracked-files=no"]) {
        Some(changes) if !changes.is_empty() => format!("{name}, changed"),
        _ => name,
    }
}

/// The middle one, and the least and greatest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) greatest: f64,
}

impl Spread {
    /// `None` of nothing.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (least, greatest) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Some(Self { median, least, greatest })
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.1} ({:.1}–{:.1})", self.median, self.least, self.greatest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_the_median() {
        assert_eq!(Spread::of([]), None);
        let three = Spread::of([3.0, 1.0, 9.0]).unwrap();
        assert_eq!((three.median, three.least, three.greatest), (3.0, 1.0, 9.0));
        assert_eq!(Spread::of([4.0, 1.0]).unwrap().median, 2.5);
        assert_eq!(three.to_string(), "3.0 (1.0–9.0)");
    }
}
