//! `run/addresses.json`: what is bound, and by whom.

use std::fmt;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::config::Config;

/// The file, in the data directory.
pub(super) const FILE: &str = "run/addresses.json";

/// What is bound.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// What addresses of all TCP doors begin with: `http` or `https`.
    #[serde(default)]
    pub scheme: Scheme,
    /// Pages and API.
    pub control: SocketAddr,
    /// Pushed streams, shared by all edges.
    pub push: SocketAddr,
    /// The stage door.
    pub stage: SocketAddr,
    /// HLS and recordings, shared by all edges.
    pub files: SocketAddr,
    /// The stage's media, UDP.
    pub stage_udp: SocketAddr,
    /// Processes.
    pub pids: Pids,
    /// How often each was started again since the supervisor began.
    #[serde(default)]
    pub restarts: Restarts,
}

/// What is spoken at the TCP doors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// HTTP without TLS.
    #[default]
    Http,
    /// HTTP over TLS.
    Https,
}

impl fmt::Display for Scheme {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Http => "http",
            Self::Https => "https",
        })
    }
}

/// Process ids; nothing for a role that is not running.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pids {
    /// The supervisor.
    pub supervisor: u32,
    /// Origin.
    pub origin: Option<u32>,
    /// Control.
    pub control: Option<u32>,
    /// The edges, in order.
    pub edges: Vec<Option<u32>>,
}

/// How often each role was started again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restarts {
    /// Origin.
    pub origin: u64,
    /// Control.
    pub control: u64,
    /// The edges, in order.
    pub edges: Vec<u64>,
}

impl Addresses {
    /// The doors of a configuration whose ports are chosen.
    pub fn of(config: &Config) -> Self {
        let mut config = config.clone();
        let [control, push, stage, files] = crate::roles::doors(&mut config).map(|(_, address)| *address);
        let scheme = if config.tls.is_on() { Scheme::Https } else { Scheme::Http };
        let (_, stage_udp) = crate::roles::media_door(&mut config);
        Self {
            scheme,
            control,
            push,
            stage,
            files,
            stage_udp: *stage_udp,
            pids: Pids { supervisor: std::process::id(), ..Pids::default() },
            restarts: Restarts::default(),
        }
    }

    /// The address of `path`, which begins with a slash, at a door.
    pub fn url(&self, door: SocketAddr, path: &str) -> String {
        format!("{}://{door}{path}", self.scheme)
    }

    /// Reads the file of a running server.
    ///
    /// # Errors
    /// If it is not there (the server is not up) or cannot be read.
    pub fn read(data: &Path) -> anyhow::Result<Self> {
        let path = data.join(FILE);
        backend::freeze::read_json(&path)?.ok_or_else(|| {
            anyhow::anyhow!(
                "no server is up in {}: there is no {FILE}; start one with `minassa serve --data {}`, or name a \
                 server with --server and --token",
                data.display(),
                data.display(),
            )
        })
    }

    /// Says it to a person.
    pub(super) fn print(&self, data: &Path, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "Minassa is up.")?;
        writeln!(out, "  pages and API   {}", self.url(self.control, "/"))?;
        writeln!(out, "  live streams    {}", self.url(self.push, "/"))?;
        writeln!(out, "  stage           {}   media: udp {}", self.url(self.stage, "/"), self.stage_udp)?;
        writeln!(out, "  HLS, recordings {}", self.url(self.files, "/"))?;
        writeln!(out, "  operator token  in {}", data.join("run/operator-token").display())?;
        writeln!(
            out,
            "  create an event with: minassa event create --data {} --title … --starts …",
            data.display()
        )
    }
}
