//! Section `[server]`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Section `[server]`: what concerns all roles of one machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerConfig {
    /// Directory of everything the server keeps. Default `./minassa-data`.
    pub data: PathBuf,
    /// Edge processes, 0 to 256; 0 means one for each core the server may use. Default 0.
    pub edges: u16,
    /// What is logged: a level (`error`, `warn`, `info`, `debug`, `trace`), or directives such as
    /// `info,minassa_origin=debug`. Default `info`.
    pub log: String,
    /// How a line of the log looks. Default `text`.
    pub log_format: LogFormat,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self { data: "./minassa-data".into(), edges: 0, log: "info".into(), log_format: LogFormat::Text }
    }
}

/// Most edge processes.
const EDGES_MAX: u16 = 256;

impl ServerConfig {
    /// How many edges are started.
    pub fn edge_count(&self) -> usize {
        match self.edges {
            0 => std::thread::available_parallelism().map_or(1, NonZeroUsize::get).min(EDGES_MAX.into()),
            edges => edges.into(),
        }
    }

    /// Checks ranges; key, value and what is allowed of the first that is outside.
    pub(super) fn check(&self) -> Result<(), (&'static str, String, String)> {
        if self.edges > EDGES_MAX {
            let allowed = format!("0 (one for each core) to {EDGES_MAX}");
            return Err(("edges", self.edges.to_string(), allowed));
        }
        if self.data.as_os_str().is_empty() {
            return Err(("data", "\"\"".into(), "the path of a directory".into()));
        }
        if let Err(error) = tracing_subscriber::EnvFilter::try_new(&self.log) {
            return Err(("log", format!("{:?}", self.log), format!("a level or directives ({error})")));
        }
        Ok(())
    }
}
