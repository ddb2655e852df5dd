//! What a crowd is asked to do.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Connections one process carries: below the usual hard limit of 20,000 open files, with room for everything else.
pub const CONNECTIONS_MAX: usize = 19_500;
/// Processes of one run.
pub const PROCESSES_MAX: usize = 64;

/// What each of the crowd is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// One endless response: the pushed stream, or Ogg.
    #[default]
    Push,
    /// A player of HLS with whole segments: playlist, `init`, the last three segments, then what is new.
    Hls,
    /// A reader of a long file: one range after another, at random places.
    Ranges,
}

/// How an `https` server's certificate is checked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// Against the system's roots (`/etc/ssl/certs/ca-certificates.crt`).
    #[default]
    System,
    /// Against the certificates in this PEM file, a self-made server certificate for one.
    File(PathBuf),
    /// Not at all, and its signature neither, which saves the generator a tenth of a millisecond a join.
    Anything,
}

/// Listeners that come all at once while the others listen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Storm {
    /// How many.
    pub joins: usize,
    /// Within how many seconds, from the beginning of the window on.
    pub over_s: f64,
}

/// A crowd: who comes, how fast, and when it is measured.
///
/// ```text
/// 0 ────── ramp ──────┬─ settle ─┬───────── window ──────────┬─ end
///   listeners, slow,  │          ├─ storm ─┤                 │
///   never-readers     │          └ churn ──────────────────► │
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CrowdConfig {
    /// Addresses, `http://` or `https://`; each listener takes the next one.
    pub urls: Vec<String>,
    /// What each of the crowd is.
    pub kind: Kind,
    /// Listeners that join in the ramp.
    pub listeners: usize,
    /// Joins a second in the ramp.
    pub ramp: f64,
    /// Seconds between the last join of the ramp and the window.
    pub settle_s: f64,
    /// Seconds that are measured.
    pub window_s: f64,
    /// Listeners on top that come within the window.
    pub storm: Option<Storm>,
    /// Readers on top that take one byte a second.
    pub slow: usize,
    /// Readers on top that take nothing once they have asked.
    pub never: usize,
    /// Listeners a second that leave within the window and come back at once as new ones.
    pub churn: f64,
    /// Whoever is cut off comes back within this many seconds, drawn evenly, and asks for the part after the last it
    /// has. `None`: it stays away.
    pub rejoin_s: Option<f64>,
    /// Whoever is cut off or not let in comes back as the page does instead: after 50 to 250 ms, then ever later, no
    /// earlier than the server asks, and for the part after the last it has. Silence is a loss.
    pub rejoin_as_page: bool,
    /// Bytes of audio that tell a part of a fuller rendition, which has at least so many, from one of a leaner. 0: they
    /// are not told apart.
    pub fuller_bytes: u64,
    /// Parts a flush, as the address asks for: the rhythm against which lateness is measured.
    pub tier: u64,
    /// A silence longer than this many seconds is a stall. 0: three seconds and one flush.
    pub stall_s: f64,
    /// How certificates are checked.
    pub trust: Trust,
    /// Whether TLS sessions are resumed.
    pub resume: bool,
    /// Sockets are looked at this often only, microseconds, so that no server pays for waking the generator; times
    /// are as coarse. 0: at once.
    pub coalesce_us: u64,
    /// Maximum segment size asked for, bytes, so that loopback cuts as a network does. 0: the device's.
    pub mss: u32,
    /// [`Kind::Ranges`]: bytes a range.
    pub range_bytes: u64,
    /// [`Kind::Ranges`]: seconds from one range's beginning to the next one's.
    pub range_every_s: f64,
    /// Load processes. 0: as many as are needed.
    pub processes: usize,
    /// Processes that are the server, sampled with everything below them.
    pub server_pids: Vec<u32>,
    /// Cores whose time is the server's.
    pub server_cores: Vec<usize>,
    /// Where the draws begin.
    pub seed: u64,
    /// Copied into the report.
    pub label: String,
}

impl Default for CrowdConfig {
    fn default() -> Self {
        Self {
            urls: Vec::new(),
            kind: Kind::Push,
            listeners: 100,
            ramp: 500.0,
            settle_s: 5.0,
            window_s: 20.0,
            storm: None,
            slow: 0,
            never: 0,
            churn: 0.0,
            rejoin_s: None,
            rejoin_as_page: false,
            fuller_bytes: 0,
            tier: 1,
            stall_s: 0.0,
            trust: Trust::System,
            resume: false,
            coalesce_us: 1_000,
            mss: 1_448,
            range_bytes: 64 * 1_024,
            range_every_s: 2.0,
            processes: 0,
            server_pids: Vec::new(),
            server_cores: Vec::new(),
            seed: 1,
            label: String::new(),
        }
    }
}

/// Why a crowd cannot be sent out.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A value outside its range.
    #[error("{what} is {given}; allowed is {allowed}")]
    Outside {
        /// Which.
        what: &'static str,
        /// What it is.
        given: String,
        /// What it may be.
        allowed: &'static str,
    },
    /// An address that cannot be used.
    #[error("{url}: {why}")]
    Address {
        /// The address.
        url: String,
        /// What is wrong with it.
        why: String,
    },
}

impl CrowdConfig {
    /// Everyone who will come.
    pub fn seats(&self) -> usize {
        self.listeners + self.slow + self.never + self.storm.map_or(0, |storm| storm.joins)
    }

    /// Load processes that will be used.
    pub fn shares(&self) -> usize {
        match self.processes {
            0 => self.seats().div_ceil(CONNECTIONS_MAX).max(1),
            given => given,
        }
    }

    /// The silence that is a stall.
    pub fn stall(&self) -> Duration {
        let flush = Duration::from_millis(480) * u32::try_from(self.tier).unwrap_or(1);
        if self.stall_s > 0.0 {
            Duration::from_secs_f64(self.stall_s)
        } else {
            Duration::from_secs(3) + flush
        }
    }

    /// Checks every value against its range.
    ///
    /// # Errors
    /// The first [`ConfigError`] found.
    pub fn check(&self) -> Result<(), ConfigError> {
        let outside = |what, given: String, allowed| Err(ConfigError::Outside { what, given, allowed });
        if self.urls.is_empty() || self.urls.len() > 64 {
            return outside("the number of addresses", self.urls.len().to_string(), "1 to 64");
        }
        if !matches!(self.tier, 1 | 2 | 4 | 8) {
            return outside("tier", self.tier.to_string(), "1, 2, 4 or 8");
        }
        let storm_s = self.storm.map_or(0.0, |storm| storm.over_s);
        let churn_max = self.listeners as f64;
        for (what, given, least, most, allowed) in [
            ("ramp", self.ramp, 0.1, 1e6, "0.1 to 1000000 joins a second"),
            ("settle", self.settle_s, 0.0, 3_600.0, "0 to 3600 seconds"),
            ("window", self.window_s, 0.5, 86_400.0, "0.5 to 86400 seconds"),
            ("churn", self.churn, 0.0, churn_max, "0 to as many a second as there are listeners"),
            ("rejoin", self.rejoin_s.unwrap_or(0.0), 0.0, 600.0, "0 to 600 seconds"),
            ("stall", self.stall_s, 0.0, 3_600.0, "0 to 3600 seconds"),
            ("storm's time", storm_s, 0.0, self.window_s, "0 seconds to the whole window"),
            ("time between ranges", self.range_every_s, 0.01, 3_600.0, "0.01 to 3600 seconds"),
        ] {
            // Written so that what is no number at all is outside too.
            if !(least..=most).contains(&given) {
                return outside(what, given.to_string(), allowed);
            }
        }
        if self.coalesce_us > 1_000_000 {
            return outside("coalesce-us", self.coalesce_us.to_string(), "0 to 1000000 microseconds");
        }
        if self.mss != 0 && !(88..=65_483).contains(&self.mss) {
            return outside("mss", self.mss.to_string(), "0, or 88 to 65483 bytes");
        }
        if !(1..=1 << 30).contains(&self.range_bytes) {
            return outside("range-bytes", self.range_bytes.to_string(), "1 to 1073741824 bytes");
        }
        let (seats, shares) = (self.seats(), self.shares());
        if shares > PROCESSES_MAX {
            return outside("the number of processes", shares.to_string(), "1 to 64");
        }
        if seats == 0 || seats > shares * CONNECTIONS_MAX {
            return outside("the number of listeners", seats.to_string(), "1 to 19500 a process");
        }
        Ok(())
    }

    /// Where the addresses lead.
    ///
    /// # Errors
    /// [`ConfigError::Address`] for the first that leads nowhere.
    pub fn targets(&self) -> Result<Vec<Target>, ConfigError> {
        self.urls.iter().map(|url| Target::resolve(url)).collect()
    }
}

/// An address, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Whether it speaks TLS.
    pub tls: bool,
    /// The value of `Host`.
    pub authority: String,
    /// The host without its port: the name that TLS asks for.
    pub host: String,
    /// Path and query.
    pub path: String,
    /// Where it is.
    pub address: SocketAddr,
}

impl Target {
    /// Takes an `http://` or `https://` address apart and looks its host up.
    ///
    /// # Errors
    /// [`ConfigError::Address`].
    pub fn resolve(url: &str) -> Result<Self, ConfigError> {
        let wrong = |why: String| ConfigError::Address { url: url.to_owned(), why };
        let (tls, rest) = match (url.strip_prefix("http://"), url.strip_prefix("https://")) {
            (Some(rest), _) => (false, rest),
            (None, Some(rest)) => (true, rest),
            (None, None) => return Err(wrong("it begins with neither http:// nor https://".to_owned())),
        };
        let (authority, path) = match rest.find(['/', '?']) {
            Some(slash) if rest.as_bytes()[slash] == b'/' => (&rest[..slash], rest[slash..].to_owned()),
            Some(question) => (&rest[..question], format!("/{}", &rest[question..])),
            None => (rest, "/".to_owned()),
        };
        if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(wrong("it holds characters that an address cannot hold".to_owned()));
        }
        let host_end = match authority.rfind(':') {
            Some(colon) if !authority[colon..].contains(']') => colon,
            _ => authority.len(),
        };
        let host = authority[..host_end].trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = match authority[host_end..].strip_prefix(':') {
            Some(port) => port.parse().map_err(|_| wrong(format!("{port:?} is no port")))?,
            None if tls => 443,
            None => 80,
        };
        let found = (host.as_str(), port).to_socket_addrs().map_err(|error| wrong(error.to_string()))?;
        // An IPv4 address first: its loopback is a whole network, so that ports do not run out.
        let address = found.min_by_key(|address| !address.is_ipv4());
        let address = address.ok_or_else(|| wrong("its host has no address".to_owned()))?;
        Ok(Self { tls, authority: authority.to_owned(), host, path, address })
    }

    /// Whether it lies on this machine or in a private network, where a crowd bothers nobody else.
    pub fn is_near(&self) -> bool {
        match self.address.ip() {
            IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        let target = |url: &str| Target::resolve(url).unwrap();
        let plain = target("http://127.0.0.1:8081/live/talk/opus-48.mp4?tier=2");
        assert_eq!((plain.tls, &*plain.authority, &*plain.host), (false, "127.0.0.1:8081", "127.0.0.1"));
        assert_eq!(plain.path, "/live/talk/opus-48.mp4?tier=2");
        let secure = target("https://[::1]?x");
        assert_eq!((secure.tls, &*secure.host, &*secure.path), (true, "::1", "/?x"));
        assert_eq!(secure.address.port(), 443);
        for wrong in ["", "ftp://a/", "http://127.0.0.1:x/", "http:///", "http://127.0.0.1/a b"] {
            assert!(Target::resolve(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_near_bothers_nobody() {
        for (url, near) in [
            ("http://127.9.9.9/", true),
            ("http://10.0.0.7/", true),
            ("http://192.168.1.1:8081/", true),
            ("http://169.254.0.1/", true),
            ("https://[::1]/", true),
            ("https://[fd00::1]/", true),
            ("http://198.51.100.7/", false),
            ("http://172.32.0.1/", false),
            ("http://[2001:db8::1]/", false),
        ] {
            assert_eq!(Target::resolve(url).unwrap().is_near(), near, "{url}");
        }
    }

    #[test]
    fn values_outside_their_range_are_named() {
        let good = CrowdConfig { urls: vec!["http://127.0.0.1/".to_owned()], ..Default::default() };
        good.check().unwrap();
        type Spoil = fn(&mut CrowdConfig);
        let cases: [(&str, Spoil); 9] = [
            ("number of addresses", |c| c.urls.clear()),
            ("tier", |c| c.tier = 3),
            ("ramp", |c| c.ramp = 0.0),
            ("window", |c| c.window_s = f64::NAN),
            ("churn", |c| c.churn = 101.0),
            ("storm", |c| c.storm = Some(Storm { joins: 1, over_s: 21.0 })),
            ("mss", |c| c.mss = 10),
            ("listeners", |c| c.listeners = 0),
            ("processes", |c| c.listeners = 10_000_000),
        ];
        for (what, spoil) in cases {
            let mut config = good.clone();
            spoil(&mut config);
            let message = config.check().unwrap_err().to_string();
            assert!(message.contains(what), "{message}");
        }
        let many = CrowdConfig { listeners: 40_000, ..good };
        assert_eq!(many.shares(), 3);
        many.check().unwrap();
    }
}
