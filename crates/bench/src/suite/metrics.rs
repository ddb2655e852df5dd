//! What an edge says of itself, in Prometheus' text.

use rehearse::crowd::{Trust, fetch};
use std::time::Duration;

/// A histogram's counts, by their upper bounds in seconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Histogram(Vec<(f64, f64)>);

impl Histogram {
    /// Reads the buckets of a family without labels of its own.
    fn parse(text: &str, name: &str) -> Self {
        let prefix = format!("{name}_bucket{{le=\"");
        let bucket = |line: &str| {
            let (bound, count) = line.strip_prefix(prefix.as_str())?.split_once("\"} ")?;
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? };
            Some((bound, count.trim().parse().ok()?))
        };
        Self(text.lines().filter_map(bucket).collect())
    }

    /// The sum of several of the same family. Empty if one of them is: the sum would not be of all.
    fn sum(all: impl IntoIterator<Item = Self>) -> Self {
        let add = |sum: Self, next: Self| {
            let same = |(mine, theirs): (&(f64, f64), &(f64, f64))| mine.0 == theirs.0;
            if sum.0.len() != next.0.len() || !sum.0.iter().zip(&next.0).all(same) {
                return Self::default();
            }
            Self(sum.0.iter().zip(&next.0).map(|(mine, theirs)| (mine.0, mine.1 + theirs.1)).collect())
        };
        all.into_iter().reduce(add).unwrap_or_default()
    }

    /// Milliseconds under which at least this fraction was since `before`: a bucket's bound, so rather too much.
    /// `None` if nothing was counted, or if it is not known what was counted before.
    pub(crate) fn quantile_since(&self, before: &Self, fraction: f64) -> Option<f64> {
        if before.0.is_empty() {
            return None;
        }
        let earlier =
            |bound: f64| before.0.iter().find(|(of, _)| *of == bound).map_or(0.0, |(_, count)| *count);
        let grown: Vec<_> = self.0.iter().map(|(bound, count)| (*bound, count - earlier(*bound))).collect();
        let all = grown.last().map(|(_, count)| *count).filter(|count| *count > 0.0)?;
        grown.iter().find(|(_, count)| *count >= fraction * all).map(|(bound, _)| 1e3 * bound)
    }
}

/// The sum of a family's samples, of whichever edge answers. `None` if it does not say.
pub(crate) fn total(files: &str, name: &str) -> Option<f64> {
    sum_of(&text(files), name)
}

fn sum_of(text: &str, name: &str) -> Option<f64> {
    let value = |line: &str| {
        let rest = line.strip_prefix(name)?;
        // Names may begin alike.
        let is_it = rest.starts_with([' ', '{']);
        if is_it { rest.rsplit(' ').next()?.parse::<f64>().ok() } else { None }
    };
    let values: Vec<f64> = text.lines().filter_map(value).collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

fn text(files: &str) -> String {
    let answer = fetch(&format!("{files}/metrics"), &Trust::Anything, Duration::from_secs(5));
    answer.map(|(_, body)| String::from_utf8_lossy(&body).into_owned()).unwrap_or_default()
}

/// How late edges find themselves, against the slots of their listeners, asked at the files door that each has of its own.
/// Empty if one of them does not say.
pub(crate) fn lateness(files: &[String]) -> Histogram {
    Histogram::sum(files.iter().map(|files| Histogram::parse(&text(files), "minassa_edge_lateness_seconds")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_a_family_add_up() {
        let text = "# TYPE a_total counter\na_total{x=\"1 2\"} 3\na_total{x=\"2\"} 4\na_total_more 9\nb 5\n";
        assert_eq!(
            (sum_of(text, "a_total"), sum_of(text, "b"), sum_of(text, "a")),
            (Some(7.0), Some(5.0), None)
        );
    }

    #[test]
    fn all_edges_are_asked_or_none() {
        let of = |a: f64, b: f64| Histogram(vec![(0.001, a), (f64::INFINITY, b)]);
        assert_eq!(Histogram::sum([of(1.0, 2.0), of(3.0, 5.0), of(0.0, 1.0)]), of(4.0, 8.0));
        for missing in [Histogram::default(), Histogram(vec![(0.002, 1.0), (f64::INFINITY, 1.0)])] {
            assert_eq!(Histogram::sum([of(1.0, 2.0), missing.clone(), of(1.0, 1.0)]), Histogram::default());
            assert_eq!(Histogram::sum([of(1.0, 2.0), missing.clone()]), Histogram::default());
            assert_eq!(Histogram::sum([missing, of(1.0, 2.0)]), Histogram::default());
        }
    }

    #[test]
    fn quantiles_are_of_what_was_added() {
        let text = |counts: [u64; 3]| {
            let [a, b, c] = counts;
            format!(
                "# TYPE late histogram\nlate_bucket{{le=\"0.001\"}} {a}\nlate_bucket{{le=\"0.05\"}} {b}\n\
                 late_bucket{{le=\"+Inf\"}} {c}\nlate_count {c}\n"
            )
        };
        let before = Histogram::parse(&text([0, 50, 50]), "late");
        let after = Histogram::parse(&text([99, 150, 150]), "late");
        assert_eq!(after.quantile_since(&before, 0.99), Some(1.0));
        assert_eq!(after.quantile_since(&before, 0.999), Some(50.0));
        assert_eq!(after.quantile_since(&after, 0.99), None);
        assert_eq!(after.quantile_since(&Histogram::default(), 0.99), None);
        assert_eq!(Histogram::parse("nothing", "late").quantile_since(&before, 0.5), None);
    }
}
