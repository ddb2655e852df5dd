//! Which keys a section of the configuration has.

use serde::de::value::{Error, MapDeserializer};
use serde::de::{Deserialize, Deserializer, Error as _, Visitor};
use serde::forward_to_deserialize_any;

/// The names of the fields of `T`, a struct that derives `Deserialize`; empty for anything else.
///
/// A derived implementation hands its list of fields to the deserialiser; this one keeps the list and deserialises
/// nothing. So a key is known to the environment and to the test of the sample without being listed twice.
pub fn fields<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
    let mut found: &'static [&'static str] = &[];
    // The result is an error or defaults; only the list matters.
    T::deserialize(Listener { found: &mut found }).ok();
    found
}

struct Listener<'a> {
    found: &'a mut &'static [&'static str],
}

impl<'de> Deserializer<'de> for Listener<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Error> {
        Err(Error::custom("not a struct"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        *self.found = fields;
        visitor.visit_map(MapDeserializer::new(std::iter::empty::<(&str, &str)>()))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        #[serde(rename = "first")]
        _a: u32,
        #[serde(rename = "second")]
        _b: Option<String>,
    }

    #[test]
    fn fields_are_found_optional_ones_too() {
        assert_eq!(fields::<Sample>(), ["first", "second"]);
        assert!(fields::<u32>().is_empty());
    }
}
