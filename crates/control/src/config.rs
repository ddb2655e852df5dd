//! Section `[control]` of the configuration.

use std::net::SocketAddr;

use backend::http::proxy::{NETWORKS_MAX, Network};
use model::EventSlug;
use serde::{Deserialize, Serialize};

/// Longest a ticket may open doors, seconds.
pub(crate) const TICKET_S_MAX: u64 = 86_400;

/// Whether newcomers may be challenged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChallengeMode {
    /// From L4 on, while the verdict on the event names an attack with requests.
    #[default]
    Auto,
    /// Never.
    Off,
}

/// Section `[control]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ControlConfig {
    /// Where the API and the pages listen. Default `127.0.0.1:8080`.
    pub listen: SocketAddr,
    /// Address of this door as the world sees it (`https://talk.example`), if it differs from what callers use.
    pub public_url: Option<String>,
    /// Address of the push door as the world sees it. Default: the host that the caller used, with the door's port.
    pub push_url: Option<String>,
    /// Address of the stage door as the world sees it. Default as above.
    pub stage_url: Option<String>,
    /// Address of the files door as the world sees it. Default as above.
    pub files_url: Option<String>,
    /// Address of the HTTP cache in front of the delayed feed, as the world sees it: whoever waits can hear the programme
    /// from there meanwhile. Default: none, they wait in silence.
    pub delayed_url: Option<String>,
    /// Connections at once, 16 to 1000000. Default 8192.
    pub connections_max: usize,
    /// Networks that connections come from through a proxy, which then has to say who is behind it: by the PROXY protocol
    /// or by `X-Forwarded-For`; at most 64. From elsewhere that is refused. Default none.
    pub proxies: Vec<Network>,
    /// Whether these proxies speak the PROXY protocol, version 2, rather than send `X-Forwarded-For`. Default false.
    pub proxy_protocol: bool,
    /// How long a ticket opens doors, seconds, 60 to 86400. Default 21600.
    pub ticket_s: u64,
    /// How long an invitation is good after the event's start, seconds, 3600 to 31536000. Default 2592000.
    pub invite_s: u64,
    /// Number of the cell that tickets are issued for: the edges behind the push and files addresses, 0 to 65535.
    /// Default 0.
    pub cell: u16,
    /// Whether newcomers are challenged to a little work while evidence says that programs ask for tickets and the ladder
    /// stands at L4 or above. Default `auto`.
    pub challenge: ChallengeMode,
    /// Events kept at most, 1 to 100000. Default 10000.
    pub events_max: u32,
}

impl Default for ControlConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            public_url: None,
            push_url: None,
            stage_url: None,
            files_url: None,
            delayed_url: None,
            connections_max: 8_192,
            proxies: Vec::new(),
            proxy_protocol: false,
            ticket_s: 6 * 3_600,
            invite_s: 30 * 86_400,
            cell: 0,
            challenge: ChallengeMode::Auto,
            events_max: 10_000,
        }
    }
}

impl ControlConfig {
    /// Address of the delayed feed of an event, if there is a cache in front of it.
    pub(crate) fn delayed(&self, event: &EventSlug) -> Option<String> {
        Some(format!("{}/live/{event}/delayed.m3u8", self.delayed_url.as_ref()?))
    }
}

/// A value of the section that is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("control.{key} = {value} is not allowed: {allowed}")]
pub struct InvalidValue {
    /// Its key.
    pub key: &'static str,
    /// What was given.
    pub value: String,
    /// What is allowed.
    pub allowed: String,
}

impl ControlConfig {
    /// Checks every range and address.
    ///
    /// # Errors
    /// [`InvalidValue`], the first there is.
    pub fn check(&self) -> Result<(), InvalidValue> {
        let urls = [
            ("public_url", &self.public_url),
            ("push_url", &self.push_url),
            ("stage_url", &self.stage_url),
            ("files_url", &self.files_url),
            ("delayed_url", &self.delayed_url),
        ];
        for (key, url) in urls {
            if let Some(url) = url
                && !is_base(url)
            {
                let allowed =
                    "http:// or https:// with a host, an optional port, and nothing behind".to_owned();
                return Err(InvalidValue { key, value: format!("{url:?}"), allowed });
            }
        }
        if self.proxies.len() > NETWORKS_MAX {
            let value = format!("{} networks", self.proxies.len());
            return Err(InvalidValue { key: "proxies", value, allowed: "at most 64 networks".to_owned() });
        }
        if self.proxy_protocol && self.proxies.is_empty() {
            let allowed = "false while control.proxies is empty".to_owned();
            return Err(InvalidValue { key: "proxy_protocol", value: "true".to_owned(), allowed });
        }
        let ranges = [
            ("connections_max", self.connections_max as u64, 16, 1_000_000),
            ("ticket_s", self.ticket_s, 60, TICKET_S_MAX),
            ("invite_s", self.invite_s, 3_600, 31_536_000),
            ("events_max", u64::from(self.events_max), 1, 100_000),
        ];
        for (key, value, least, most) in ranges {
            if !(least..=most).contains(&value) {
                return Err(InvalidValue {
                    key,
                    value: value.to_string(),
                    allowed: format!("{least} to {most}"),
                });
            }
        }
        Ok(())
    }
}

/// Whether an address can stand in front of a path.
fn is_base(url: &str) -> bool {
    let uri = url.parse::<http::Uri>();
    uri.is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
            && uri.path() == "/"
            && uri.query().is_none()
            && !url.ends_with('/')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_allowed() {
        assert_eq!(ControlConfig::default().check(), Ok(()));
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        let check = |change: fn(&mut ControlConfig), expected: &str| {
            let mut config = ControlConfig::default();
            change(&mut config);
            assert_eq!(config.check().unwrap_err().to_string(), expected);
        };
        check(|c| c.ticket_s = 5, "control.ticket_s = 5 is not allowed: 60 to 86400");
        check(
            |c| c.proxy_protocol = true,
            "control.proxy_protocol = true is not allowed: false while control.proxies is empty",
        );
        check(
            |c| c.proxies = vec!["10.0.0.0/8".parse().unwrap(); 65],
            "control.proxies = 65 networks is not allowed: at most 64 networks",
        );
        check(|c| c.connections_max = 0, "control.connections_max = 0 is not allowed: 16 to 1000000");
        for bad in ["talk.example", "ftp://a", "http://a/", "http://a/b", "http://a?b", "https://a@b", ""] {
            let config = ControlConfig { push_url: Some(bad.to_owned()), ..ControlConfig::default() };
            assert_eq!(config.check().unwrap_err().key, "push_url", "{bad}");
        }
        let good = ControlConfig {
            public_url: Some("https://talk.example:8443".into()),
            ..ControlConfig::default()
        };
        assert_eq!(good.check(), Ok(()));
    }

    #[test]
    fn a_key_that_does_not_exist_is_refused() {
        let error = serde_json::from_str::<ControlConfig>(r#"{"listne":"1"}"#).unwrap_err();
        assert!(error.to_string().contains("unknown field `listne`"), "{error}");
    }
}
