//! Section `[edge]` of the configuration.

use std::net::{IpAddr, SocketAddr};

use backend::http::proxy::{NETWORKS_MAX, Network};
use serde::{Deserialize, Serialize};

/// Section `[edge]`. Several edges of one machine share one section and, by `SO_REUSEPORT`, their ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EdgeConfig {
    /// Where the pushed stream and the endless addresses listen (HTTP/1.1). Default `127.0.0.1:8081`.
    pub push_listen: SocketAddr,
    /// Where playlists, segments and recordings listen (HTTP/1.1 and 2). Default `127.0.0.1:8083`.
    pub files_listen: SocketAddr,
    /// Address of the files door as the world sees it (`https://files.example`), for redirects after the end.
    /// Default: the host that the caller used, with the door's port.
    pub files_url: Option<String>,
    /// Address of the HTTP cache in front of the delayed feed, as the world sees it (`https://cdn.example`). Players
    /// without a ticket are sent there while newcomers have to wait. Default: none, they get `503`.
    pub delayed_url: Option<String>,
    /// Addresses that `/metrics` of the files door answers, besides this machine's own (and so besides whoever comes
    /// through a proxy on it). Default: none.
    pub metrics_from: Vec<IpAddr>,
    /// Networks that connections of both doors come from through a proxy, which then has to say who is behind it: by the
    /// PROXY protocol or by `X-Forwarded-For`; at most 64. From elsewhere that is refused. Default none.
    pub proxies: Vec<Network>,
    /// Whether these proxies speak the PROXY protocol, version 2, rather than send `X-Forwarded-For`. Default false.
    pub proxy_protocol: bool,
    /// Cell that tickets must name: all edges behind one address. Default 0.
    pub cell: u16,
    /// Listeners of the push door at once, 1 to 1000000. Who comes then gets `503`. Less if the limit of open files
    /// asks for it. Default 15000.
    pub listeners_max: usize,
    /// Connections of the files door at once, 16 to 1000000; more wait. Less if the limit of open files asks for it.
    /// Default 2048.
    pub files_connections_max: usize,
    /// Requests of the files door that are held at once until a part, or a playlist with it, is there, 1 to 1000000; who
    /// would have to wait then gets `503`. A player of parts holds two. Default 4096.
    pub held_max: usize,
    /// Downloads of recordings and clips at once, 1 to 1000000; who comes then gets `503`. Each takes up to 128 KB while
    /// its reader is slow. Default 2048.
    pub downloads_max: usize,
    /// Open files kept free for everything that is no connection, 64 to 100000. Default 256.
    pub files_reserve: usize,
    /// Memory kept free for everything else on the machine, or in the control group, MiB, 0 to 1048576; while there is
    /// less, nobody new is let in at the push door, and gets `503`. Of what the kernel allows for TCP the same, but no
    /// more than an eighth. Default 256.
    pub memory_reserve_mib: u64,
    /// What the line carries for this edge, Mbit/s, 1 to 1000000: of that the ladder takes its measures. Default: unknown,
    /// so that the line is never found short.
    pub line_mbit: Option<u64>,
    /// Threads of the files door, 1 to 64; they give way to the push door. Default 1, for an edge a core.
    pub files_threads: usize,
    /// How long a listener may take nothing, or too little, before it is closed, seconds, 1 to 600. The kernel tells of
    /// room only once about a third of the send buffer is free: who takes less than that in this time counts as one who
    /// takes nothing, which with the defaults is some hundred bytes a second. Default 30.
    pub stuck_s: u64,
    /// Bytes the kernel may keep for a listener who does not take them, 4096 to 16777216; it may use twice as much
    /// memory for them. The edge itself keeps what did not fit of one flush: up to 24576 bytes and a part. Default 20480.
    pub send_buffer: usize,
    /// Reads of recordings from the disk at once, 1 to 512. Default 16.
    pub disk_reads: usize,
    /// Events with a window at once, 1 to 4096; a window takes up to 4 MB. Default 64.
    pub windows_max: usize,
    /// How long the window of an event that has ended is kept for those who come back, seconds, 1 to 3600.
    /// Default 120.
    pub linger_s: u64,
    /// Longest time over which listeners are let go at a shutdown, milliseconds, 0 to 2500. Default 1500.
    pub leave_ms: u64,
}

impl Default for EdgeConfig {
    fn default() -> Self {
        Self {
            push_listen: SocketAddr::from(([127, 0, 0, 1], 8081)),
            files_listen: SocketAddr::from(([127, 0, 0, 1], 8083)),
            files_url: None,
            delayed_url: None,
            metrics_from: Vec::new(),
            proxies: Vec::new(),
            proxy_protocol: false,
            cell: 0,
            listeners_max: 15_000,
            files_connections_max: 2_048,
            held_max: 4_096,
            downloads_max: 2_048,
            files_reserve: 256,
            memory_reserve_mib: 256,
            line_mbit: None,
            files_threads: 1,
            stuck_s: 30,
            send_buffer: 20 * 1024,
            disk_reads: 16,
            windows_max: 64,
            linger_s: 120,
            leave_ms: 1_500,
        }
    }
}

/// A value outside its range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("edge.{key} is {value}; allowed is {allowed}")]
pub struct ConfigError {
    /// The key.
    pub key: &'static str,
    /// What it is set to.
    pub value: String,
    /// What is allowed.
    pub allowed: &'static str,
}

impl EdgeConfig {
    /// Checks every value against its range.
    ///
    /// # Errors
    /// The first [`ConfigError`] found.
    pub fn check(&self) -> Result<(), ConfigError> {
        let outside = |key, value: u64, allowed| ConfigError { key, value: value.to_string(), allowed };
        let ranges: [(&'static str, u64, std::ops::RangeInclusive<u64>, &'static str); 14] = [
            ("listeners_max", self.listeners_max as u64, 1..=1_000_000, "1 to 1000000"),
            ("files_connections_max", self.files_connections_max as u64, 16..=1_000_000, "16 to 1000000"),
            ("held_max", self.held_max as u64, 1..=1_000_000, "1 to 1000000"),
            ("downloads_max", self.downloads_max as u64, 1..=1_000_000, "1 to 1000000"),
            ("files_reserve", self.files_reserve as u64, 64..=100_000, "64 to 100000"),
            ("memory_reserve_mib", self.memory_reserve_mib, 0..=1_048_576, "0 to 1048576"),
            ("line_mbit", self.line_mbit.unwrap_or(1), 1..=1_000_000, "1 to 1000000"),
            ("files_threads", self.files_threads as u64, 1..=64, "1 to 64"),
            ("stuck_s", self.stuck_s, 1..=600, "1 to 600"),
            ("send_buffer", self.send_buffer as u64, 4_096..=16_777_216, "4096 to 16777216"),
            ("disk_reads", self.disk_reads as u64, 1..=512, "1 to 512"),
            ("windows_max", self.windows_max as u64, 1..=4_096, "1 to 4096"),
            ("linger_s", self.linger_s, 1..=3_600, "1 to 3600"),
            ("leave_ms", self.leave_ms, 0..=2_500, "0 to 2500"),
        ];
        for (key, value, range, allowed) in ranges {
            if !range.contains(&value) {
                return Err(outside(key, value, allowed));
            }
        }
        if self.proxies.len() > NETWORKS_MAX {
            return Err(outside("proxies", self.proxies.len() as u64, "at most 64 networks"));
        }
        if self.proxy_protocol && self.proxies.is_empty() {
            let allowed = "false while edge.proxies is empty";
            return Err(ConfigError { key: "proxy_protocol", value: "true".to_owned(), allowed });
        }
        for (key, url) in [("files_url", &self.files_url), ("delayed_url", &self.delayed_url)] {
            if let Some(url) = url
                && (!(url.starts_with("http://") || url.starts_with("https://"))
                    || http::HeaderValue::from_str(url).is_err())
            {
                let allowed = "an address that begins with http:// or https://";
                return Err(ConfigError { key, value: url.clone(), allowed });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_within_its_ranges() {
        assert_eq!(EdgeConfig::default().check(), Ok(()));
    }

    #[test]
    fn what_is_outside_names_its_key() {
        type Spoil = fn(&mut EdgeConfig);
        let cases: [(&str, Spoil); 19] = [
            ("memory_reserve_mib", |c| c.memory_reserve_mib = 1_048_577),
            ("line_mbit", |c| c.line_mbit = Some(0)),
            ("files_threads", |c| c.files_threads = 0),
            ("listeners_max", |c| c.listeners_max = 0),
            ("files_connections_max", |c| c.files_connections_max = 1),
            ("held_max", |c| c.held_max = 0),
            ("downloads_max", |c| c.downloads_max = 1_000_001),
            ("files_reserve", |c| c.files_reserve = 1),
            ("stuck_s", |c| c.stuck_s = 601),
            ("send_buffer", |c| c.send_buffer = 1),
            ("disk_reads", |c| c.disk_reads = 0),
            ("windows_max", |c| c.windows_max = 5_000),
            ("linger_s", |c| c.linger_s = 0),
            ("leave_ms", |c| c.leave_ms = 2_501),
            ("proxies", |c| c.proxies = vec!["10.0.0.0/8".parse().unwrap(); 65]),
            ("proxy_protocol", |c| c.proxy_protocol = true),
            ("files_url", |c| c.files_url = Some("ftp://files".to_owned())),
            ("files_url", |c| c.files_url = Some("http://a\nb".to_owned())),
            ("delayed_url", |c| c.delayed_url = Some("cdn.example".to_owned())),
        ];
        for (key, spoil) in cases {
            let mut config = EdgeConfig::default();
            spoil(&mut config);
            assert_eq!(config.check().unwrap_err().key, key);
        }
    }
}
