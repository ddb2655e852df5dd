//! Byte ranges (RFC 9110 section 14) and validators (section 13), as plain functions.

use std::ops::Range;

use http::{HeaderMap, Method, header};

/// What a request wants of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// All of it: `200`.
    Whole,
    /// These bytes, not empty: `206`.
    Bytes(Range<u64>),
    /// Bytes there are none of: `416`.
    Nothing,
    /// What it has already: `304`.
    Unchanged,
}

/// What a `GET` or `HEAD` wants of a file of `length` bytes whose strong validator is `etag`. Only a `GET` can want some of
/// it (RFC 9110 section 14.2).
///
/// A request for several ranges gets the whole file, as RFC 9110 section 14.2 allows: no player asks for such, and
/// answering is work that grows with the request. So does a range with a unit other than bytes, or a broken one.
pub(crate) fn wanted(method: &Method, headers: &HeaderMap, length: u64, etag: &str) -> Wanted {
    if matches(headers, header::IF_NONE_MATCH.as_str(), etag) {
        return Wanted::Unchanged;
    }
    if method != Method::GET {
        return Wanted::Whole;
    }
    let mut ranges = headers.get_all(header::RANGE).iter();
    let (Some(range), None) = (ranges.next(), ranges.next()) else { return Wanted::Whole };
    // A date can never be a strong validator of a file that grows; our answers carry none.
    if let Some(condition) = headers.get(header::IF_RANGE)
        && condition.as_bytes() != etag.as_bytes()
    {
        return Wanted::Whole;
    }
    match range.to_str().ok().and_then(|text| text.trim().strip_prefix("bytes=")) {
        Some(spec) => one_range(spec.trim(), length).unwrap_or(Wanted::Whole),
        None => Wanted::Whole,
    }
}

/// `None` if it is broken or asks for several.
fn one_range(spec: &str, length: u64) -> Option<Wanted> {
    let (first, last) = spec.split_once('-')?;
    let number = |text: &str| -> Option<u64> {
        // Beyond 64 bits is beyond every file.
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse().unwrap_or(u64::MAX))
    };
    let range = if first.is_empty() {
        let suffix = number(last)?;
        length.saturating_sub(suffix)..length
    } else {
        let first = number(first)?;
        let last = if last.is_empty() { u64::MAX } else { number(last)? };
        if last < first {
            return None;
        }
        first..last.saturating_add(1).min(length)
    };
    Some(if range.is_empty() { Wanted::Nothing } else { Wanted::Bytes(range) })
}

/// Weak comparison with a list of validators (RFC 9110 section 13.1.2).
fn matches(headers: &HeaderMap, name: &str, etag: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(','))
        .map(str::trim)
        .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAG: &str = "\"abc\"";

    fn check(pairs: &[(&'static str, &str)], expected: Wanted) {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        assert_eq!(wanted(&Method::GET, &headers, 1000, TAG), expected, "{pairs:?}");
    }

    #[test]
    fn ranges() {
        for (range, expected) in [
            ("bytes=0-0", Wanted::Bytes(0..1)),
            ("bytes=0-", Wanted::Bytes(0..1000)),
            ("bytes=999-", Wanted::Bytes(999..1000)),
            ("bytes=10-19", Wanted::Bytes(10..20)),
            ("bytes=10-99999", Wanted::Bytes(10..1000)),
            ("bytes=10-99999999999999999999999", Wanted::Bytes(10..1000)),
            ("bytes=-1", Wanted::Bytes(999..1000)),
            ("bytes=-5000", Wanted::Bytes(0..1000)),
            (" bytes=5-5 ", Wanted::Bytes(5..6)),
            ("bytes=1000-", Wanted::Nothing),
            ("bytes=99999999999999999999999-", Wanted::Nothing),
            ("bytes=-0", Wanted::Nothing),
            ("bytes=20-10", Wanted::Whole),
            ("bytes=", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
            ("bytes=a-b", Wanted::Whole),
            ("bytes=+1-2", Wanted::Whole),
            ("bytes=0-1,5-6", Wanted::Whole),
            ("seconds=0-1", Wanted::Whole),
            ("garbage", Wanted::Whole),
        ] {
            check(&[("range", range)], expected);
        }
        check(&[("range", "bytes=0-1"), ("range", "bytes=5-6")], Wanted::Whole);
        check(&[], Wanted::Whole);
    }

    #[test]
    fn an_empty_file_has_no_ranges() {
        let mut headers = HeaderMap::new();
        headers.insert("range", "bytes=0-".parse().unwrap());
        assert_eq!(wanted(&Method::GET, &headers, 0, TAG), Wanted::Nothing);
        assert_eq!(wanted(&Method::HEAD, &headers, 0, TAG), Wanted::Whole);
    }

    #[test]
    fn validators() {
        check(&[("range", "bytes=0-1"), ("if-range", TAG)], Wanted::Bytes(0..2));
        check(&[("range", "bytes=0-1"), ("if-range", "\"other\"")], Wanted::Whole);
        check(&[("range", "bytes=0-1"), ("if-range", "W/\"abc\"")], Wanted::Whole);
        check(&[("range", "bytes=0-1"), ("if-range", "Sun, 22 Nov 2026 20:00:00 GMT")], Wanted::Whole);
        for none_match in [TAG, "W/\"abc\"", "*", "\"x\", \"abc\""] {
            check(&[("if-none-match", none_match), ("range", "bytes=0-1")], Wanted::Unchanged);
        }
        check(&[("if-none-match", "\"x\"")], Wanted::Whole);
    }
}
