//! Section `[origin]` of the configuration.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use backend::http::proxy::{NETWORKS_MAX, Network};
use serde::{Deserialize, Serialize};

/// Section `[origin]`: the stage door, media, programme and recorder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OriginConfig {
    /// Where the stage door listens: stage page, WHIP, Icecast sources, stage API (HTTP/1.1). Default
    /// `127.0.0.1:8082`.
    pub listen: SocketAddr,
    /// Where the media of all speakers arrives (UDP). Default `127.0.0.1:8082`.
    pub media_listen: SocketAddr,
    /// Addresses at which speakers reach the media port, named to them as ICE candidates; at most 8. Needed behind
    /// address translation. Default none: the address of `media_listen`, or this machine's addresses if that is
    /// unspecified (`0.0.0.0`).
    pub media_public: Vec<SocketAddr>,
    /// Further directories that the recorder moves to when writing to the data directory fails, in this order; at
    /// most 8. Default none.
    pub recording_fallbacks: Vec<PathBuf>,
    /// Connections of speakers at once over all events, 1 to 512. Default 64.
    pub sessions_max: usize,
    /// Connections to the stage door at once, 16 to 65536; more wait. Default 1024.
    pub connections_max: usize,
    /// Networks that connections come from through a proxy, which then has to say who is behind it: by the PROXY protocol
    /// or by `X-Forwarded-For`; at most 64. From elsewhere that is refused. Default none.
    pub proxies: Vec<Network>,
    /// Whether these proxies speak the PROXY protocol, version 2, rather than send `X-Forwarded-For`. Default false.
    pub proxy_protocol: bool,
    /// Events with a running programme at once, 1 to 32; each takes about a tenth of a core with a few speakers.
    /// Default 4.
    pub programmes_max: usize,
    /// Longest wait at the start for parts that only edges have, milliseconds, 0 to 2000. Default 300.
    pub refill_ms: u64,
    /// Parts that may wait for the disk before the recorder's alarm rings and parts are lost to the recording,
    /// 16 to 4096 (480 ms each). Default 512.
    pub recorder_queue: usize,
    /// Whether to keep the mix before it is encoded as `recordings/{event}/mix-{epoch}.wav` (16-bit mono, 346 MB an
    /// hour), for later editing. Default false.
    pub keep_mix: bool,
}

impl Default for OriginConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8082)),
            media_listen: SocketAddr::from(([127, 0, 0, 1], 8082)),
            media_public: Vec::new(),
            recording_fallbacks: Vec::new(),
            sessions_max: 64,
            connections_max: 1_024,
            proxies: Vec::new(),
            proxy_protocol: false,
            programmes_max: 4,
            refill_ms: 300,
            recorder_queue: 512,
            keep_mix: false,
        }
    }
}

/// A value outside its range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("origin.{key} is {value}; allowed is {allowed}")]
pub struct ConfigError {
    /// The key.
    pub key: &'static str,
    /// What it is set to.
    pub value: String,
    /// What is allowed.
    pub allowed: &'static str,
}

impl OriginConfig {
    /// Checks every value against its range.
    ///
    /// # Errors
    /// The first [`ConfigError`] found.
    pub fn check(&self) -> Result<(), ConfigError> {
        let numbers = [
            ("sessions_max", self.sessions_max as u64, 1..=512, "1 to 512"),
            ("connections_max", self.connections_max as u64, 16..=65_536, "16 to 65536"),
            ("programmes_max", self.programmes_max as u64, 1..=32, "1 to 32"),
            ("refill_ms", self.refill_ms, 0..=2_000, "0 to 2000"),
            ("recorder_queue", self.recorder_queue as u64, 16..=4_096, "16 to 4096"),
        ];
        for (key, value, range, allowed) in numbers {
            if !range.contains(&value) {
                return Err(ConfigError { key, value: value.to_string(), allowed });
            }
        }
        if self.media_public.len() > 8
            || self.media_public.iter().any(|address| address.port() == 0 || address.ip().is_unspecified())
        {
            return Err(ConfigError {
                key: "media_public",
                value: format!("{:?}", self.media_public),
                allowed: "at most 8 addresses, none unspecified, each with a port",
            });
        }
        if self.proxies.len() > NETWORKS_MAX {
            return Err(ConfigError {
                key: "proxies",
                value: format!("{} networks", self.proxies.len()),
                allowed: "at most 64 networks",
            });
        }
        if self.proxy_protocol && self.proxies.is_empty() {
            return Err(ConfigError {
                key: "proxy_protocol",
                value: "true".to_owned(),
                allowed: "false while origin.proxies is empty",
            });
        }
        if self.recording_fallbacks.len() > 8 {
            return Err(ConfigError {
                key: "recording_fallbacks",
                value: format!("{} directories", self.recording_fallbacks.len()),
                allowed: "at most 8 directories",
            });
        }
        Ok(())
    }

    pub(crate) fn refill(&self) -> Duration {
        Duration::from_millis(self.refill_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_within_its_ranges() {
        assert_eq!(OriginConfig::default().check(), Ok(()));
    }

    #[test]
    fn what_is_outside_names_its_key() {
        type Spoil = fn(&mut OriginConfig);
        let cases: [(&str, Spoil); 8] = [
            ("sessions_max", |c| c.sessions_max = 0),
            ("connections_max", |c| c.connections_max = 1),
            ("programmes_max", |c| c.programmes_max = 33),
            ("refill_ms", |c| c.refill_ms = 2_001),
            ("recorder_queue", |c| c.recorder_queue = 1),
            ("media_public", |c| c.media_public = vec!["0.0.0.0:9".parse().unwrap()]),
            ("media_public", |c| c.media_public = vec!["10.0.0.1:9".parse().unwrap(); 9]),
            ("recording_fallbacks", |c| c.recording_fallbacks = vec!["x".into(); 9]),
        ];
        for (key, spoil) in cases {
            let mut config = OriginConfig::default();
            spoil(&mut config);
            assert_eq!(config.check().unwrap_err().key, key);
        }
    }
}
