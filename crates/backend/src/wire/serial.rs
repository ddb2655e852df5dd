//! How single values are written: names as text, moments as nanoseconds, digests and keys as hexadecimal text, so
//! that the frozen JSON can be read by a person.

use std::fmt::Display;
use std::str::FromStr;

use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

/// Types that are written as their text.
pub(super) mod text {
    use super::*;

    pub(in crate::wire) fn serialize<T: Display, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub(in crate::wire) fn deserialize<'de, T, D>(from: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// As [`text`], for what may be missing.
pub(super) mod maybe_text {
    use super::*;

    pub(in crate::wire) fn serialize<T: Display, S: Serializer>(
        value: &Option<T>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => to.serialize_some(&value.to_string()),
            None => to.serialize_none(),
        }
    }

    pub(in crate::wire) fn deserialize<'de, T, D>(from: D) -> Result<Option<T>, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
    }
}

/// Moments, as nanoseconds since 1970.
pub(super) mod nanos {
    use super::*;
    use model::UnixTime;

    pub(in crate::wire) fn serialize<S: Serializer>(value: &UnixTime, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_i64(value.as_nanos())
    }

    pub(in crate::wire) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<UnixTime, D::Error> {
        i64::deserialize(from).map(UnixTime::from_nanos)
    }
}

/// Moments that may not have come yet.
pub(super) mod maybe_nanos {
    use super::*;
    use model::UnixTime;
    use serde::Serialize as _;

    pub(in crate::wire) fn serialize<S: Serializer>(
        value: &Option<UnixTime>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        value.map(UnixTime::as_nanos).serialize(to)
    }

    pub(in crate::wire) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<UnixTime>, D::Error> {
        Ok(Option::<i64>::deserialize(from)?.map(UnixTime::from_nanos))
    }
}

/// Numbers of parts that may not exist yet.
pub(super) mod maybe_part {
    use super::*;
    use model::PartNumber;
    use serde::Serialize as _;

    pub(in crate::wire) fn serialize<S: Serializer>(
        value: &Option<PartNumber>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        value.map(PartNumber::get).serialize(to)
    }

    pub(in crate::wire) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<PartNumber>, D::Error> {
        Ok(Option::<u64>::deserialize(from)?.map(PartNumber::new))
    }
}

/// Bytes of a fixed number, as hexadecimal text.
pub(super) mod hex {
    use super::*;

    pub(in crate::wire) fn serialize<const N: usize, S: Serializer>(
        value: &[u8; N],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_str(&to_hex(value))
    }

    pub(in crate::wire) fn deserialize<'de, const N: usize, D: Deserializer<'de>>(
        from: D,
    ) -> Result<[u8; N], D::Error> {
        let text = String::deserialize(from)?;
        from_hex(&text).ok_or_else(|| D::Error::custom(format_args!("{} hexadecimal digits expected", 2 * N)))
    }
}

/// As [`hex`], for what may be missing.
pub(super) mod maybe_hex {
    use super::*;
    use serde::Serialize as _;

    pub(in crate::wire) fn serialize<const N: usize, S: Serializer>(
        value: &Option<[u8; N]>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        value.as_ref().map(|bytes| to_hex(bytes)).serialize(to)
    }

    pub(in crate::wire) fn deserialize<'de, const N: usize, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<[u8; N]>, D::Error> {
        let Some(text) = Option::<String>::deserialize(from)? else { return Ok(None) };
        from_hex(&text)
            .map(Some)
            .ok_or_else(|| D::Error::custom(format_args!("{} hexadecimal digits expected", 2 * N)))
    }
}

fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digit = |c: u8| (c as char).to_digit(16).map(|d| d as u8);
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}
