//! The fingerprint of a TLS client: JA4, by the method that FoxIO published (github.com/FoxIO-LLC/ja4, BSD 3-clause).
//! It names a program, not a person, and is counted for the ledger. The other fingerprints of that family are not taken.
//!
//! ```text
//!  t13d1516h2 _ 8daaf6152771 _ d8a2da3f94cd
//!  │││ │ │ │    │              └ SHA-256 of extensions, sorted, without names and protocols, and of the
//!  │││ │ │ │    │                signature algorithms in their order: 12 hexadecimal digits
//!  │││ │ │ │    └ SHA-256 of cipher suites, sorted
//!  │││ │ │ └ first and last letter of the first protocol (ALPN)
//!  │││ │ └ extensions
//!  │││ └ cipher suites
//!  ││└ d: it names a server, i: it does not
//!  │└ version
//!  └ over TCP
//! ```
//!
//! Values that clients put in at random so that nobody relies on an order (GREASE, RFC 8701) are left out.

use std::fmt::Write as _;

use admission::ledger::Ja4;
use aws_lc_rs::digest::{SHA256, digest};
use bytes::Buf as _;

/// Most bytes of a client's first records that are looked at; a hello with a post-quantum key share has two thousand.
pub(crate) const HELLO_BYTES_MAX: usize = 8 * 1_024;

/// Types of records and messages (RFC 8446, sections 4 and 5.1).
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
/// Types of extensions (RFC 8446, section 4.2; RFC 7301).
const SERVER_NAME: u16 = 0;
const SIGNATURE_ALGORITHMS: u16 = 13;
const PROTOCOLS: u16 = 16;
const SUPPORTED_VERSIONS: u16 = 43;
/// Highest number that the fingerprint has room for.
const COUNT_MAX: usize = 99;
/// Stands for the hash of nothing.
const NOTHING: &str = "000000000000";

/// The fingerprint of the client whose first records these are; `None` if they are no whole `ClientHello`.
pub fn ja4(records: &[u8]) -> Option<Ja4> {
    let message = message(records)?;
    let mut hello = message.as_slice();
    let legacy_version = hello.try_get_u16().ok()?;
    take(&mut hello, 32)?;
    let length = hello.try_get_u8().ok()?;
    take(&mut hello, length.into())?;
    let ciphers = numbers(vector(&mut hello)?);
    let length = hello.try_get_u8().ok()?;
    take(&mut hello, length.into())?;
    let (mut kinds, mut versions, mut signatures, mut protocol) = (Vec::new(), Vec::new(), Vec::new(), None);
    let mut extensions = if hello.is_empty() { hello } else { vector(&mut hello)? };
    while !extensions.is_empty() {
        let kind = extensions.try_get_u16().ok()?;
        let mut body = vector(&mut extensions)?;
        match kind {
            SUPPORTED_VERSIONS => versions = numbers(body.get(1..)?),
            SIGNATURE_ALGORITHMS => signatures = numbers(vector(&mut body)?),
            PROTOCOLS => {
                let mut names = vector(&mut body)?;
                let length = names.try_get_u8().ok()?;
                protocol = take(&mut names, length.into());
            }
            _ => {}
        }
        kinds.push(kind);
    }
    kinds.retain(|kind| !is_grease(*kind));
    let version = version(versions.into_iter().max().unwrap_or(legacy_version));
    let named = if kinds.contains(&SERVER_NAME) { 'd' } else { 'i' };
    let counts = [ciphers.len(), kinds.len()].map(|count| count.min(COUNT_MAX));
    let mut text = format!("t{version}{named}{:02}{:02}", counts[0], counts[1]);
    text.extend(ends(protocol.unwrap_or_default()));
    write!(text, "_{}", hash(&sorted(ciphers), &[])).ok()?;
    kinds.retain(|kind| ![SERVER_NAME, PROTOCOLS].contains(kind));
    write!(text, "_{}", hash(&sorted(kinds), &signatures)).ok()?;
    text.parse().ok()
}

/// The body of the `ClientHello`, whatever records it comes in.
fn message(mut records: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        if let Some((head, body)) = bytes.split_first_chunk::<4>() {
            let length = usize::try_from(u32::from_be_bytes([0, head[1], head[2], head[3]])).ok()?;
            if head[0] != CLIENT_HELLO {
                return None;
            }
            if let Some(body) = body.get(..length) {
                return Some(body.to_vec());
            }
        }
        if records.try_get_u8().ok()? != HANDSHAKE {
            return None;
        }
        take(&mut records, 2)?;
        bytes.extend_from_slice(vector(&mut records)?);
    }
}

/// What follows a length of two bytes, and is as long.
fn vector<'b>(bytes: &mut &'b [u8]) -> Option<&'b [u8]> {
    let length = bytes.try_get_u16().ok()?;
    take(bytes, length.into())
}

fn take<'b>(bytes: &mut &'b [u8], length: usize) -> Option<&'b [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

/// Numbers of two bytes, those left out that mean nothing.
fn numbers(bytes: &[u8]) -> Vec<u16> {
    let pairs = bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    pairs.filter(|number| !is_grease(*number)).collect()
}

fn is_grease(number: u16) -> bool {
    let [high, low] = number.to_be_bytes();
    high == low && low & 0x0f == 0x0a
}

fn version(number: u16) -> &'static str {
    match number {
        0x0304 => "13",
        0x0303 => "12",
        0x0302 => "11",
        0x0301 => "10",
        0x0300 => "s3",
        _ => "00",
    }
}

/// The first and the last letter of a protocol's name, or of its hexadecimal digits if it ends in anything else.
fn ends(protocol: &[u8]) -> [char; 2] {
    let (Some(first), Some(last)) = (protocol.first(), protocol.last()) else { return ['0'; 2] };
    if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() {
        return [char::from(*first), char::from(*last)];
    }
    let digit = |half: u8| char::from_digit(u32::from(half & 0x0f), 16).unwrap_or('0');
    [digit(first >> 4), digit(*last)]
}

fn sorted(mut numbers: Vec<u16>) -> Vec<u16> {
    numbers.sort_unstable();
    numbers
}

/// The first digits of the hash of numbers as text; those of `after`, if there are any, behind.
fn hash(numbers: &[u16], after: &[u16]) -> String {
    if numbers.is_empty() {
        return NOTHING.to_owned();
    }
    let list = |numbers: &[u16]| {
        let texts: Vec<_> = numbers.iter().map(|number| format!("{number:04x}")).collect();
        texts.join(",")
    };
    let mut text = list(numbers);
    if !after.is_empty() {
        text.push('_');
        text.push_str(&list(after));
    }
    let digest = digest(&SHA256, text.as_bytes());
    digest.as_ref()[..6].iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Entry points of the fuzzers.
#[doc(hidden)]
pub mod fuzz {
    /// Takes the fingerprint of `data` as a client's first records.
    pub fn hello(data: &[u8]) {
        let _ = super::ja4(data);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_length(body: &[u8]) -> Vec<u8> {
        [&u16::try_from(body.len()).unwrap().to_be_bytes()[..], body].concat()
    }

    fn list(numbers: &str) -> Vec<u8> {
        let number = |text| u16::from_str_radix(text, 16).unwrap().to_be_bytes();
        numbers.split(',').filter(|text| !text.is_empty()).flat_map(number).collect()
    }

    /// The records of a hello with these cipher suites and extensions, cut after `fragment` bytes of the message.
    fn hello(ciphers: &str, extensions: &[(u16, Vec<u8>)], fragment: usize) -> Vec<u8> {
        let mut message = vec![3, 3];
        message.extend_from_slice(&[7; 32]);
        message.extend_from_slice(&[2, 9, 9]);
        message.extend(with_length(&list(ciphers)));
        message.extend_from_slice(&[1, 0]);
        let extension =
            |(kind, body): &(u16, Vec<u8>)| [&kind.to_be_bytes()[..], &with_length(body)].concat();
        if !extensions.is_empty() {
            message.extend(with_length(&extensions.iter().flat_map(extension).collect::<Vec<_>>()));
        }
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        let message = [&[1], &length[1..], &message].concat();
        let record = |bytes: &[u8]| [&[22, 3, 1][..], &with_length(bytes)].concat();
        message.chunks(fragment).flat_map(record).collect()
    }

    /// What Chrome 143 says, in one of its orders, with two GREASE values; its fingerprint as others have published it.
    fn chrome(fragment: usize) -> Vec<u8> {
        let ciphers = "7a7a,1301,1302,1303,c02b,c02f,c02c,c030,cca9,cca8,c013,c014,009c,009d,002f,0035";
        let mut extensions: Vec<_> =
            list("1a1a,002d,0033,0010,fe0d,0017,44cd,0000,000b,000a,002b,ff01,0023,0012,0005,000d,001b")
                .chunks(2)
                .map(|kind| (u16::from_be_bytes([kind[0], kind[1]]), Vec::new()))
                .collect();
        for (kind, body) in &mut extensions {
            *body = match *kind {
                PROTOCOLS => with_length(b"\x02h2\x08http/1.1"),
                SUPPORTED_VERSIONS => [&[6][..], &list("2a2a,0304,0303")].concat(),
                SIGNATURE_ALGORITHMS => with_length(&list("0403,0804,0401,0503,0805,0501,0806,0601")),
                _ => vec![0; 5],
            };
        }
        hello(ciphers, &extensions, fragment)
    }

    #[test]
    fn a_browser_has_the_fingerprint_that_others_know() {
        for fragment in [4_000, 100, 3] {
            let found = ja4(&chrome(fragment)).unwrap();
            assert_eq!(found.as_str(), "t13d1516h2_8daaf6152771_d8a2da3f94cd");
        }
    }

    #[test]
    fn who_says_little_has_one_too() {
        assert_eq!(ja4(&hello("", &[], 100)).unwrap().as_str(), "t12i000000_000000000000_000000000000");
        let odd = [(PROTOCOLS, with_length(&[2, 0xab, 0xcd]))];
        assert!(ja4(&hello("1301", &odd, 100)).unwrap().as_str().starts_with("t12i0101ad_"));
        let one = [(PROTOCOLS, with_length(b"\x01x"))];
        assert!(ja4(&hello("1301", &one, 100)).unwrap().as_str().starts_with("t12i0101xx_"));
    }

    #[test]
    fn what_is_no_hello_has_none() {
        let whole = chrome(100);
        for end in 0..whole.len() {
            assert_eq!(ja4(&whole[..end]), None, "{end}");
        }
        let mut other = whole.clone();
        other[0] = 23;
        assert_eq!(ja4(&other), None);
        other[0] = 22;
        other[5] = 2;
        assert_eq!(ja4(&other), None);
        // Whatever stands in it, nothing panics.
        for at in 0..whole.len() {
            for byte in [0, 1, 0x7f, 0xff] {
                let mut other = whole.clone();
                other[at] = byte;
                let _ = ja4(&other);
            }
        }
    }
}
