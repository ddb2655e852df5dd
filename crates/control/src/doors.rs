//! The doors and their addresses as a caller sees them.

use std::net::SocketAddr;
use std::path::Path;

use backend::freeze;
use backend::problem::Problem;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use serde::Deserialize;

use crate::{ControlConfig, Doors};

/// The part of `run/addresses.json` that matters here.
#[derive(Deserialize)]
struct Addresses {
    push: SocketAddr,
    stage: SocketAddr,
    files: SocketAddr,
}

/// Reads where the doors are bound; `None` until that is known.
pub(crate) fn read(addresses: &Path) -> Option<Doors> {
    let Addresses { push, stage, files } = freeze::read_json(addresses).ok()??;
    Some(Doors { push, stage, files })
}

/// One of the doors that control sends callers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    Push,
    Stage,
    Files,
}

/// Addresses, without a slash at their end, as the caller of one request can use them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bases {
    /// Control's own.
    pub(crate) public: String,
    /// The other doors'; `None` until they are known.
    pub(crate) push: Option<String>,
    pub(crate) stage: Option<String>,
    pub(crate) files: Option<String>,
}

impl Bases {
    /// By the configuration, or else by `scheme`, which all doors have in common, and the host that the request names, with each door's port: whoever reached this
    /// door under a name reaches the others under it too.
    pub(crate) fn of(
        config: &ControlConfig,
        scheme: &str,
        doors: Option<Doors>,
        local: SocketAddr,
        headers: &HeaderMap,
        uri: &Uri,
    ) -> Self {
        let named = headers.get(header::HOST).and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
        let authority =
            named.or_else(|| uri.authority().cloned()).filter(|named| !named.as_str().contains('@'));
        let host = authority.as_ref().map_or_else(|| host_of(local), |authority| authority.host().to_owned());
        let whole = authority.map_or_else(|| format!("{host}:{}", local.port()), |given| given.to_string());
        let base = |configured: &Option<String>, door: Option<SocketAddr>| {
            configured.clone().or_else(|| door.map(|door| format!("{scheme}://{host}:{}", door.port())))
        };
        Self {
            public: config.public_url.clone().unwrap_or_else(|| format!("{scheme}://{whole}")),
            push: base(&config.push_url, doors.map(|doors| doors.push)),
            stage: base(&config.stage_url, doors.map(|doors| doors.stage)),
            files: base(&config.files_url, doors.map(|doors| doors.files)),
        }
    }

    /// One door's address.
    pub(crate) fn door(&self, door: Door) -> Result<&str, Problem> {
        let base = match door {
            Door::Push => &self.push,
            Door::Stage => &self.stage,
            Door::Files => &self.files,
        };
        base.as_deref().ok_or_else(|| Problem::unavailable("the other doors are not open yet", 1))
    }
}

/// 307 to the same path and query at `base`.
pub(crate) fn redirect(base: &str, uri: &Uri) -> Result<http::Response<axum::body::Body>, Problem> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let location = HeaderValue::try_from(format!("{base}{path}")).map_err(|_| Problem::not_found())?;
    let mut response = http::Response::default();
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    response.headers_mut().insert(header::LOCATION, location);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Players on other pages follow it.
    response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    Ok(response)
}

/// The door of a live address: what is endless is pushed, everything else is files.
pub(crate) fn of_live(rest: &str) -> Door {
    let pushed = !rest.contains('/') && [".mp4", ".ogg", ".mp3"].iter().any(|end| rest.ends_with(end));
    if pushed { Door::Push } else { Door::Files }
}

fn host_of(address: SocketAddr) -> String {
    match address {
        SocketAddr::V4(address) if address.ip().is_unspecified() => "127.0.0.1".to_owned(),
        SocketAddr::V4(address) => address.ip().to_string(),
        SocketAddr::V6(address) if address.ip().is_unspecified() => "[::1]".to_owned(),
        SocketAddr::V6(address) => format!("[{}]", address.ip()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bases(config: &ControlConfig, host: Option<&str>, uri: &str) -> Bases {
        let doors = Doors {
            push: ([0, 0, 0, 0], 8081).into(),
            stage: ([127, 0, 0, 1], 8082).into(),
            files: ([127, 0, 0, 1], 8083).into(),
        };
        let mut headers = HeaderMap::new();
        headers.extend(host.map(|host| (header::HOST, HeaderValue::try_from(host).unwrap())));
        Bases::of(config, "http", Some(doors), ([0, 0, 0, 0], 8080).into(), &headers, &uri.parse().unwrap())
    }

    #[test]
    fn doors_are_named_as_the_caller_named_us() {
        let default = ControlConfig::default();
        let check = |host, uri, public: &str, push: &str| {
            let bases = bases(&default, host, uri);
            assert_eq!((bases.public.as_str(), bases.push.as_deref().unwrap()), (public, push));
        };
        check(Some("talk.example:80"), "/", "http://talk.example:80", "http://talk.example:8081");
        check(Some("[2001:db8::1]:8080"), "/", "http://[2001:db8::1]:8080", "http://[2001:db8::1]:8081");
        check(None, "http://two.example/", "http://two.example", "http://two.example:8081");
        for unusable in [None, Some("a b"), Some("x@evil.example"), Some("")] {
            check(unusable, "/", "http://127.0.0.1:8080", "http://127.0.0.1:8081");
        }
        let config = ControlConfig { push_url: Some("https://push.example".into()), ..default.clone() };
        let bases = bases(&config, Some("talk.example"), "/");
        assert_eq!(bases.door(Door::Push).unwrap(), "https://push.example");
        assert_eq!(bases.door(Door::Stage).unwrap(), "http://talk.example:8082");

        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("talk.example:8080"));
        let doors = Doors {
            push: ([127, 0, 0, 1], 1).into(),
            stage: ([127, 0, 0, 1], 2).into(),
            files: ([127, 0, 0, 1], 3).into(),
        };
        let local = ([127, 0, 0, 1], 8080).into();
        let bases = Bases::of(&default, "https", Some(doors), local, &headers, &"/".parse().unwrap());
        assert_eq!(bases.public, "https://talk.example:8080");
        assert_eq!(bases.door(Door::Push).unwrap(), "https://talk.example:1");
    }

    #[test]
    fn live_addresses_know_their_door() {
        for (rest, door) in [
            ("opus-48.mp4", Door::Push),
            ("opus-24.ogg", Door::Push),
            ("mp3-64.mp3", Door::Push),
            ("index.m3u8", Door::Files),
            ("opus-48.m3u8", Door::Files),
            ("opus-48/init-0123456789abcdef.mp4", Door::Files),
            ("mp3-64/17.mp3", Door::Files),
        ] {
            assert_eq!(of_live(rest), door, "{rest}");
        }
    }

    #[test]
    fn the_file_of_addresses_may_be_missing_or_broken() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("addresses.json");
        assert_eq!(read(&path), None);
        std::fs::write(&path, "{").unwrap();
        assert_eq!(read(&path), None);
        let json =
            r#"{"control":"127.0.0.1:1","push":"127.0.0.1:2","stage":"127.0.0.1:3","files":"[::1]:4"}"#;
        std::fs::write(&path, json).unwrap();
        assert_eq!(read(&path).unwrap().files, "[::1]:4".parse().unwrap());
    }
}
