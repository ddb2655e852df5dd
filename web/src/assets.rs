//! Files that the pages load.

use std::collections::BTreeMap;
use std::sync::LazyLock;

/// One file, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asset {
    /// The whole body.
    pub bytes: &'static [u8],
    /// For `Content-Type`, with its charset.
    pub content_type: &'static str,
    /// For `ETag`, with its quotes; changes with the bytes. A request whose `If-None-Match` names it deserves `304`.
    pub etag: String,
    /// For `Cache-Control`.
    pub cache_control: &'static str,
}

/// Makes one entry of the table below; the content type follows the file's name.
macro_rules! file {
    ($directory:literal, $name:literal) => {
        ($name, include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/", $directory, "/", $name)).as_slice())
    };
}

/// Every file of `web/static` (a test compares this table with the directory), and the text tables.
pub(crate) const FILES: &[(&str, &[u8])] = &[
    file!("static", "api.js"),
    file!("static", "backoff.js"),
    file!("static", "boxes.js"),
    file!("static", "challenge.js"),
    file!("static", "delayed.js"),
    file!("static", "dom.js"),
    file!("static", "event.js"),
    file!("static", "icon.svg"),
    file!("static", "index.js"),
    file!("static", "listener.js"),
    file!("static", "listening.js"),
    file!("static", "microphone.js"),
    file!("static", "plain.js"),
    file!("static", "player.js"),
    file!("static", "replay.js"),
    file!("static", "report.css"),
    file!("static", "report.js"),
    file!("static", "ring.js"),
    file!("static", "room.js"),
    file!("static", "solver.js"),
    file!("static", "solver-worker.js"),
    file!("static", "stage.js"),
    file!("static", "stream.js"),
    file!("static", "style.css"),
    file!("static", "text.js"),
    file!("static", "tickets.js"),
    file!("static", "watch.js"),
    file!("static", "whip.js"),
    ("text/ar.json", crate::pages::TEXT_AR.as_bytes()),
    ("text/en.json", crate::pages::TEXT_EN.as_bytes()),
];

/// The file that `/assets/{path}` names; `path` may begin with a [`build`] of any version. `None` is a `404`.
pub fn asset(path: &str) -> Option<Asset> {
    if let Some(found) = find(path) {
        return Some(Asset { cache_control: "no-cache", ..found });
    }
    let (prefix, path) = path.split_once('/')?;
    if prefix.len() != 16 || !prefix.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let found = find(path)?;
    let ours = prefix == build();
    Some(Asset {
        cache_control: if ours { "public, max-age=31536000, immutable" } else { "no-cache" },
        ..found
    })
}

/// Name of this set of files, 16 hexadecimal digits: the first part of the paths that pages name.
pub fn build() -> &'static str {
    static BUILD: LazyLock<String> = LazyLock::new(|| {
        let all = FILES.iter().fold(FNV_OFFSET, |hash, (name, bytes)| fnv(fnv(hash, name.as_bytes()), bytes));
        format!("{all:016x}")
    });
    &BUILD
}

/// A file of `web/tests`, for a browser that tests the modules: `unit.js` and what it imports, besides `/assets`.
#[cfg(feature = "tests")]
pub fn test_asset(path: &str) -> Option<Asset> {
    const FILES: &[(&str, &[u8])] = &[file!("tests", "unit.js")];
    let (name, bytes) = FILES.iter().find(|(name, _)| *name == path)?;
    Some(entry(name, bytes))
}

fn find(path: &str) -> Option<Asset> {
    static INDEX: LazyLock<BTreeMap<&str, Asset>> =
        LazyLock::new(|| FILES.iter().map(|(name, bytes)| (*name, entry(name, bytes))).collect());
    INDEX.get(path).cloned()
}

fn entry(name: &str, bytes: &'static [u8]) -> Asset {
    Asset {
        bytes,
        content_type: content_type(name),
        etag: format!("\"{:016x}\"", fnv(FNV_OFFSET, bytes)),
        cache_control: "no-cache",
    }
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("json") => "application/json",
        Some("svg") => "image/svg+xml",
        Some("html") => "text/html; charset=utf-8",
        _ => "application/octet-stream",
    }
}

/// Start of FNV-1a, 64 bit: it tells versions of our own files apart, nothing more.
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use super::*;

    #[test]
    fn every_file_is_embedded() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/static");
        let there: BTreeSet<String> = fs::read_dir(directory)
            .expect("the directory is part of the crate")
            .map(|entry| entry.expect("readable").file_name().into_string().expect("our names are ASCII"))
            .collect();
        let embedded: BTreeSet<String> = FILES
            .iter()
            .map(|(name, _)| (*name).to_owned())
            .filter(|name| !name.starts_with("text/"))
            .collect();
        assert_eq!(there, embedded);
    }

    #[test]
    fn modules_import_only_what_is_there() {
        for (name, bytes) in FILES.iter().filter(|(name, _)| name.ends_with(".js")) {
            let source = std::str::from_utf8(bytes).expect("our files are UTF-8");
            for import in
                source.lines().filter_map(|line| line.trim().strip_suffix("';")?.split_once("from './"))
            {
                assert!(find(import.1).is_some(), "{name} imports {}", import.1);
            }
        }
    }

    #[test]
    fn a_prefix_of_this_build_is_cacheable_for_ever_and_others_are_not() {
        let plain = asset("style.css").expect("there is one");
        assert_eq!(plain.content_type, "text/css; charset=utf-8");
        assert_eq!(plain.cache_control, "no-cache");
        let ours = asset(&format!("{}/style.css", build())).expect("there is one");
        assert!(ours.cache_control.contains("immutable"));
        assert_eq!(ours.etag, plain.etag);
        let old = asset("0000000000000000/text/ar.json").expect("there is one");
        assert_eq!((old.cache_control, old.content_type), ("no-cache", "application/json"));
        assert_ne!(old.etag, plain.etag);
        for nothing in ["", "/", "a/b/style.css", "../style.css", "style", "unit.js", "tests/unit.js"] {
            assert!(asset(nothing).is_none(), "{nothing}");
        }
    }

    #[cfg(feature = "tests")]
    #[test]
    fn tests_are_served_apart() {
        assert!(test_asset("unit.js").is_some());
        assert!(test_asset("style.css").is_none());
    }
}
