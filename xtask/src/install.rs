//! What the tests need beyond Rust and a C compiler.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::run::{cargo, is_installed, root, run, succeeds};

/// A package of Debian and how to see that it is there.
struct Package {
    name: &'static str,
    is_there: fn() -> bool,
    why: &'static str,
}

const PACKAGES: [Package; 8] = [
    Package {
        name: "chromium",
        is_there: || is_installed("chromium"),
        why: "a real browser speaks and listens",
    },
    Package { name: "ffmpeg", is_there: || is_installed("ffmpeg"), why: "an independent player and source" },
    Package { name: "openssl", is_there: || is_installed("openssl"), why: "an independent TLS client" },
    Package {
        name: "faketime",
        is_there: || is_installed("faketime"),
        why: "steps the wall clock under a show",
    },
    Package {
        name: "python3-venv",
        // The module that Debian leaves out of python3 itself.
        is_there: || succeeds(Command::new("python3").args(["-c", "import venv, ensurepip"])),
        why: "holds the independent WebRTC clients",
    },
    Package {
        name: "cmake",
        is_there: || is_installed("cmake"),
        why: "builds libopus, which ours is compared with",
    },
    Package {
        name: "npm",
        is_there: || is_installed("npm"),
        why: "fetches the HLS player of most web pages",
    },
    Package {
        name: "nginx",
        is_there: || is_server_installed("nginx"),
        why: "a cache in front of the delayed feed",
    },
];

/// Servers that the edge is measured against, and what feeds them.
const PEERS: [Package; 4] = [
    Package {
        name: "icecast2",
        is_there: || is_server_installed("icecast2"),
        why: "a peer of the pushed stream",
    },
    Package { name: "nginx", is_there: || is_server_installed("nginx"), why: "a peer of HLS" },
    Package { name: "ffmpeg", is_there: || is_installed("ffmpeg"), why: "the peers' source" },
    Package { name: "openssl", is_there: || is_installed("openssl"), why: "makes a peer's certificate" },
];

/// What grades the doors' TLS, with what it calls.
const TESTSSL: [Package; 4] = [
    // Debian leaves the `.sh` out of the command's name.
    Package { name: "testssl.sh", is_there: || is_installed("testssl"), why: "grades TLS" },
    Package { name: "openssl", is_there: || is_installed("openssl"), why: "what testssl.sh asks with" },
    Package {
        name: "bsdextrautils",
        is_there: || is_installed("hexdump"),
        why: "testssl.sh reads bytes with it",
    },
    Package {
        name: "procps",
        is_there: || is_installed("ps"),
        why: "testssl.sh watches its children with it",
    },
];

/// Debian keeps servers where ordinary users do not look.
fn is_server_installed(program: &str) -> bool {
    is_installed(program)
        || ["/usr/sbin", "/sbin"].iter().any(|place| Path::new(place).join(program).is_file())
}

/// Independent WebRTC clients, with the import that shows they are there. `imageio-ffmpeg` brings an ffmpeg that can
/// publish over WHIP, which Debian's cannot.
const PYTHON_PACKAGES: [(&str, &str); 2] =
    [("aiortc==1.16.0", "aiortc"), ("imageio-ffmpeg==0.8.1", "imageio_ffmpeg")];

/// An independent HLS player, with its version and its script in `target/npm/node_modules`.
const NPM_PACKAGES: [(&str, &str, &str); 1] = [("hls.js", "1.7.4", "dist/hls.min.js")];

/// Installs what is missing of the system's packages. A server among them is told not to start.
///
/// # Errors
/// If they cannot be installed.
pub(crate) fn system_packages() -> Result<()> {
    install(&PACKAGES)
}

/// Installs what is missing of the peers. Debian's packages start servers as they are installed; these are told not to.
///
/// # Errors
/// If they cannot be installed.
pub(crate) fn peers() -> Result<()> {
    install(&PEERS)
}

/// Installs `perf` if it is missing.
///
/// # Errors
/// If it cannot be installed.
pub(crate) fn perf() -> Result<()> {
    install(&[Package {
        name: "linux-perf",
        is_there: || is_installed("perf"),
        why: "shows where cycles go",
    }])
}

/// Installs `hping3`, which floods a network namespace with SYN, if it is missing.
///
/// # Errors
/// If it cannot be installed.
pub(crate) fn hping() -> Result<()> {
    install(&[Package {
        name: "hping3",
        is_there: || is_installed("hping3"),
        why: "opens connections halfway",
    }])
}

/// Installs `testssl.sh` and what it calls, if they are missing.
///
/// # Errors
/// If they cannot be installed.
pub(crate) fn testssl() -> Result<()> {
    install(&TESTSSL)
}

fn install(packages: &[Package]) -> Result<()> {
    let missing: Vec<_> = packages.iter().filter(|package| !(package.is_there)()).collect();
    if missing.is_empty() {
        eprintln!("everything is there");
        return Ok(());
    }
    for package in &missing {
        eprintln!("{} is missing: {}", package.name, package.why);
    }
    let names: Vec<_> = missing.iter().map(|package| package.name).collect();
    if !is_installed("apt-get") {
        bail!("install these with your system's package manager: {}", names.join(", "));
    }
    run(&mut apt_get(&["update"])?)?;
    // A machine that has just started may be busy with packages of its own.
    let patient = ["-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3"];
    let mut install = [&["install", "--yes", "--no-install-recommends"], &patient[..]].concat();
    install.extend(&names);
    run(&mut apt_get(&install)?)?;
    match missing.iter().find(|package| !(package.is_there)()) {
        Some(package) => bail!("{} was installed and still is not there", package.name),
        None => Ok(()),
    }
}

/// `apt-get`, as root: as we are, or through `sudo`.
fn apt_get(arguments: &[&str]) -> Result<Command> {
    let user = Command::new("id").arg("-u").output().context("cannot find out who we are")?;
    let is_root = user.stdout.trim_ascii() == b"0";
    let mut command = match (is_root, is_installed("sudo")) {
        (true, _) => Command::new("apt-get"),
        (false, true) => {
            let mut sudo = Command::new("sudo");
            sudo.arg("--preserve-env=DEBIAN_FRONTEND,RUNLEVEL").arg("apt-get");
            sudo
        }
        (false, false) => bail!("packages are missing, and this is neither root nor is there sudo"),
    };
    // At run level 1 Debian's scripts start no service.
    command.env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1").args(arguments);
    Ok(command)
}

/// Makes `target/venv` with the independent clients.
///
/// # Errors
/// If it cannot be made.
pub(crate) fn python() -> Result<()> {
    let venv = root().join("target/venv");
    let python = venv.join("bin/python");
    if !python.exists() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    }
    let imports: Vec<_> = PYTHON_PACKAGES.iter().map(|(_, module)| format!("import {module}")).collect();
    if succeeds(Command::new(&python).args(["-c", &imports.join("; ")])) {
        eprintln!("everything is there");
        return Ok(());
    }
    let wanted = PYTHON_PACKAGES.iter().map(|(package, _)| package);
    run(Command::new(&python)
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"])
        .args(wanted))
}

/// Makes `target/npm` with the independent player.
///
/// # Errors
/// If it cannot be made.
pub(crate) fn npm() -> Result<()> {
    let prefix = root().join("target/npm");
    let is_there = |(name, version, script): &(&str, &str, &str)| {
        let folder = prefix.join("node_modules").join(name);
        let said = std::fs::read_to_string(folder.join("package.json")).unwrap_or_default();
        said.contains(&format!("\"version\": \"{version}\"")) && folder.join(script).exists()
    };
    if NPM_PACKAGES.iter().all(is_there) {
        eprintln!("everything is there");
        return Ok(());
    }
    std::fs::create_dir_all(&prefix)?;
    // What packages would like to run at their installation is not run.
    run(Command::new("npm")
        .args(["install", "--no-save", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel", "error"])
        .arg("--prefix")
        .arg(&prefix)
        .args(NPM_PACKAGES.map(|(name, version, _)| format!("{name}@{version}"))))?;
    match NPM_PACKAGES.iter().find(|package| !is_there(package)) {
        Some((name, ..)) => bail!("{name} was installed and still is not there"),
        None => Ok(()),
    }
}

/// `cargo-deny`: the one on the path, or one of our own in `target/tools`.
///
/// # Errors
/// If it is missing and cannot be installed.
pub(crate) fn cargo_deny() -> Result<PathBuf> {
    let tools = root().join("target/tools");
    let own = tools.join("bin/cargo-deny");
    if is_installed("cargo-deny") {
        return Ok("cargo-deny".into());
    }
    if !own.exists() {
        // It is needed once and works little: what it is built with matters more than how fast it is. Its target
        // directory is not ours: it shares no dependency's build.
        run(cargo()
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
            .env("CARGO_PROFILE_RELEASE_DEBUG", "false")
            .args(["install", "cargo-deny", "--locked", "--version", "^0.20", "--root"])
            .arg(&tools)
            .arg("--target-dir")
            .arg(tools.join("build")))?;
        std::fs::remove_dir_all(tools.join("build")).ok();
    }
    Ok(own)
}
