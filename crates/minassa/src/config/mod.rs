//! The one configuration: a TOML file, overridden by the environment, overridden by flags.
//!
//! Every crate that can be configured owns its section. Precedence is resolved once, on the plain table, before
//! anything is parsed into its type; so a message always names the value that was meant to apply and where it came
//! from. What a running server uses is written to `run/config.toml` of its data directory, and its children read
//! that and nothing else.

mod fields;
mod server;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use backend::tls::TlsConfig;
use control::ControlConfig;
use edge::EdgeConfig;
use origin::OriginConfig;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

pub use fields::fields;
pub use server::{LogFormat, ServerConfig};

/// The file that is read when none is named, if it is there.
pub const DEFAULT_FILE: &str = "minassa.toml";
/// The annotated sample: every key with its default and a sentence.
pub const SAMPLE: &str = include_str!("../../../../minassa.sample.toml");

/// Everything that can be set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The server as a whole.
    pub server: ServerConfig,
    /// The certificate of all doors.
    pub tls: TlsConfig,
    /// Pages, API, store.
    pub control: ControlConfig,
    /// The stage, programme, recorder.
    pub origin: OriginConfig,
    /// The push and files doors.
    pub edge: EdgeConfig,
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {source}", path = path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no TOML.
    #[error("{path} is no TOML: {message}", path = path.display())]
    Syntax {
        /// Which.
        path: PathBuf,
        /// Where and why.
        message: String,
    },
    /// There is no such key.
    #[error("{place}: there is no key {key}{}", suggestion(.known))]
    UnknownKey {
        /// Where it was given.
        place: Place,
        /// `section.key`.
        key: String,
        /// The keys there are in its place.
        known: Vec<&'static str>,
    },
    /// A value that is not allowed.
    #[error("{place}: {key} = {value} is not allowed: {allowed}")]
    Invalid {
        /// Where it was given.
        place: Place,
        /// `section.key`.
        key: String,
        /// What was given.
        value: String,
        /// What is allowed, or why it is not.
        allowed: String,
    },
}

fn suggestion(known: &[&'static str]) -> String {
    if known.is_empty() { String::new() } else { format!("; there are {}", known.join(", ")) }
}

/// Where a value was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nowhere: it is the default.
    Default,
    /// In this file.
    File(PathBuf),
    /// In this variable of the environment.
    Environment(String),
    /// By this flag.
    Flag(&'static str),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("the default"),
            Self::File(path) => path.display().fmt(f),
            Self::Environment(name) => write!(f, "the environment's {name}"),
            Self::Flag(name) => write!(f, "the flag {name}"),
        }
    }
}

/// One value given by a flag.
#[derive(Clone, Debug)]
pub struct FlagValue {
    /// The flag, with its dashes.
    pub flag: &'static str,
    /// Section and key that it sets.
    pub key: (&'static str, &'static str),
    /// What was given.
    pub value: Value,
}

/// Where each value came from, by section and key.
type Places = BTreeMap<(String, String), Place>;

impl Config {
    /// Reads `file` (or [`DEFAULT_FILE`] of the working directory, if it is there), then `environment`, then `flags`.
    ///
    /// # Errors
    /// [`ConfigError`], naming the key, the value, where it was given and what is allowed.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: &[FlagValue],
    ) -> Result<Self, ConfigError> {
        let mut table = Table::new();
        let mut places = Places::new();
        if let Some(path) = file.or_else(|| Some(Path::new(DEFAULT_FILE)).filter(|path| path.exists())) {
            read_file(path, &mut table, &mut places)?;
        }
        for (name, text) in environment {
            apply_variable(&name, &text, &mut table, &mut places)?;
        }
        for flag in flags {
            let (section, key) = flag.key;
            put(&mut table, &mut places, section, key, flag.value.clone(), Place::Flag(flag.flag));
        }
        Self::from_table(table, &places)
    }

    /// Reads what [`Self::to_toml`] wrote for the children of a running server.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load_effective(path: &Path) -> Result<Self, ConfigError> {
        let mut table = Table::new();
        let mut places = Places::new();
        read_file(path, &mut table, &mut places)?;
        Self::from_table(table, &places)
    }

    /// As TOML, every key that has a value.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("the configuration's types have a form in TOML")
    }

    fn from_table(table: Table, places: &Places) -> Result<Self, ConfigError> {
        let place_of = |section: &str, key: &str| {
            places.get(&(section.to_owned(), key.to_owned())).cloned().unwrap_or(Place::Default)
        };
        let given = Value::Table(table);
        let config: Self = serde_path_to_error::deserialize(given.clone()).map_err(|error| {
            let path = error.path().to_string();
            let mut names = path.split('.');
            let (section, key) = (names.next().unwrap_or_default(), names.next().unwrap_or_default());
            let key = key.split('[').next().unwrap_or_default();
            ConfigError::Invalid {
                place: place_of(section, key),
                value: given
                    .get(section)
                    .and_then(|section| section.get(key))
                    .map(ToString::to_string)
                    .unwrap_or_default(),
                key: path,
                allowed: error.into_inner().message().trim().to_owned(),
            }
        })?;
        config.check().map_err(|(section, key, value, allowed)| ConfigError::Invalid {
            place: place_of(section, key),
            key: format!("{section}.{key}"),
            value,
            allowed,
        })?;
        Ok(config)
    }

    /// Checks every range; section, key, value and what is allowed of the first that is outside.
    fn check(&self) -> Result<(), (&'static str, &'static str, String, String)> {
        self.server.check().map_err(|(key, value, allowed)| ("server", key, value, allowed))?;
        self.tls.check().map_err(|error| ("tls", error.key, error.value, error.allowed.into()))?;
        self.control.check().map_err(|error| ("control", error.key, error.value, error.allowed))?;
        self.origin.check().map_err(|error| ("origin", error.key, error.value, error.allowed.into()))?;
        self.edge.check().map_err(|error| ("edge", error.key, error.value, error.allowed.into()))
    }
}

/// The keys of a section; `None` if there is no such section.
pub fn keys(section: &str) -> Option<&'static [&'static str]> {
    Some(match section {
        "server" => fields::<ServerConfig>(),
        "tls" => fields::<TlsConfig>(),
        "control" => fields::<ControlConfig>(),
        "origin" => fields::<OriginConfig>(),
        "edge" => fields::<EdgeConfig>(),
        _ => return None,
    })
}

/// The sections, in the order of the sample.
pub const SECTIONS: [&str; 5] = ["server", "tls", "control", "origin", "edge"];

fn read_file(path: &Path, table: &mut Table, places: &mut Places) -> Result<(), ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    let read: Table = text.parse().map_err(|error: toml::de::Error| ConfigError::Syntax {
        path: path.to_owned(),
        message: error.to_string().trim().to_owned(),
    })?;
    let place = Place::File(path.to_owned());
    for (section, content) in read {
        let Some(known) = keys(&section) else {
            return Err(ConfigError::UnknownKey { place, key: section, known: SECTIONS.to_vec() });
        };
        let Value::Table(content) = content else {
            return Err(ConfigError::Invalid {
                place,
                value: content.to_string(),
                allowed: format!("a section begins with [{section}]"),
                key: section,
            });
        };
        for (key, value) in content {
            if !known.contains(&key.as_str()) {
                let key = format!("{section}.{key}");
                return Err(ConfigError::UnknownKey { place, key, known: known.to_vec() });
            }
            put(table, places, &section, &key, value, place.clone());
        }
    }
    Ok(())
}

fn apply_variable(name: &str, text: &str, table: &mut Table, places: &mut Places) -> Result<(), ConfigError> {
    let Some(rest) = name.strip_prefix("MINASSA_") else { return Ok(()) };
    let rest = rest.to_ascii_lowercase();
    let (section, key) = rest.split_once('_').unwrap_or((&rest, ""));
    let place = Place::Environment(name.to_owned());
    // Other programs may name their variables after us; only what names a section of ours is meant for us.
    let Some(known) = keys(section) else { return Ok(()) };
    if !known.contains(&key) {
        let key = format!("{section}.{key}");
        return Err(ConfigError::UnknownKey { place, key, known: known.to_vec() });
    }
    let value = typed(section, key, text);
    put(table, places, section, key, value, place);
    Ok(())
}

/// A text of the environment as a value: text where the default is text, otherwise what TOML makes of it, and text
/// if it makes nothing of it.
fn typed(section: &str, key: &str, text: &str) -> Value {
    let default = Value::try_from(Config::default()).expect("the defaults have a form in TOML");
    let is_text = default.get(section).and_then(|s| s.get(key)).is_some_and(Value::is_str);
    if is_text {
        return Value::String(text.to_owned());
    }
    format!("value = {text}")
        .parse::<Table>()
        .ok()
        .and_then(|mut table| table.remove("value"))
        .filter(|value| !value.is_datetime())
        .unwrap_or_else(|| Value::String(text.to_owned()))
}

fn put(table: &mut Table, places: &mut Places, section: &str, key: &str, value: Value, place: Place) {
    let content = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
    if let Value::Table(content) = content {
        content.insert(key.to_owned(), value);
    }
    places.insert((section.to_owned(), key.to_owned()), place);
}

#[cfg(test)]
mod tests;
