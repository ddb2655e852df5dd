//! Half-open connections. Packets with sources that are not ours need raw sockets, so `hping3` sends them, and only inside
//! a network namespace which holds nothing but the lab: there they reach nobody.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::swarm::Notes;

/// Where Debian has it.
const HPING: &str = "/usr/sbin/hping3";
/// Set by [`enter`] for what runs inside.
const INSIDE: &str = "MINASSA_BENCH_NAMESPACE";

/// Why a flood cannot be had here; `None` if it can.
pub(crate) fn why_not() -> Option<String> {
    if !Path::new(HPING).is_file() {
        return Some("hping3 is not installed".to_owned());
    }
    let mut unshare = Command::new("unshare");
    unshare.args(["--net", "true"]).stdout(Stdio::null()).stderr(Stdio::null());
    match unshare.status() {
        Ok(status) if status.success() => None,
        Ok(_) => Some("network namespaces are not allowed".to_owned()),
        Err(error) => Some(format!("unshare: {error}")),
    }
}

/// Whether this process is in the lab's namespace: it was told so, and no device leads out of it.
pub(crate) fn is_inside() -> bool {
    let table = std::fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
    std::env::var_os(INSIDE).is_some() && is_closed(&table)
}

/// Whether a table of devices (two lines of heads, then `name: counters`) names none but loopback and the void.
fn is_closed(table: &str) -> bool {
    let mut names = table.lines().skip(2).filter_map(|line| line.split(':').next()).peekable();
    names.peek().is_some() && names.all(|name| matches!(name.trim(), "lo" | "void" | "void1"))
}

/// Runs this program again with `arguments` in a namespace of its own, in which answers to anybody lead nowhere.
///
/// # Errors
/// If it cannot, or if what ran inside failed.
pub(crate) fn enter(arguments: &[String]) -> Result<()> {
    // A pair of devices that end in each other, of which the second has no address: every kernel has them, others have no
    // `dummy`. Without ARP, since nobody answers; and what comes from 127.0.0.1 may leave by it, or nothing would be half open.
    let script = "ip link set lo up && ip link add void type veth peer name void1 && ip link set void1 up \
                  && ip link set void arp off up && ip route add default dev void \
                  && echo 1 > /proc/sys/net/ipv4/conf/void/route_localnet && exec \"$0\" \"$@\"";
    let mut command = Command::new("unshare");
    command
        .args(["--net", "sh", "-c", script])
        .arg(std::env::current_exe()?)
        .args(arguments)
        .env(INSIDE, "1");
    let status = command.status().context("cannot run unshare")?;
    if status.success() { Ok(()) } else { bail!("in the namespace: {status}") }
}

/// `hping3`'s arguments.
pub(crate) fn arguments(port: u16, per_second: f64) -> Vec<String> {
    let every_us = (1e6 / per_second.max(1.0)).round().max(1.0) as u64;
    let mut arguments: Vec<String> = ["--syn", "--quiet", "--rand-source"].map(str::to_owned).to_vec();
    arguments.extend([
        "--destport".to_owned(),
        port.to_string(),
        "--interval".to_owned(),
        format!("u{every_us}"),
    ]);
    arguments.push("127.0.0.1".to_owned());
    arguments
}

/// Sends them, for so long.
///
/// # Errors
/// If this is not the lab's namespace, or `hping3` cannot be run.
pub(crate) fn flood(port: u16, per_second: f64, seconds: f64) -> Result<Notes> {
    if !is_inside() {
        bail!("half-open connections are sent in a namespace of their own only");
    }
    let before = counters();
    let mut command = Command::new("timeout");
    command.arg(format!("{seconds:.1}")).arg(HPING).args(arguments(port, per_second));
    // `timeout` ends it, which is no failure.
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    let mut notes = Notes::default();
    for ((name, after), (_, before)) in counters().into_iter().zip(before) {
        notes.add(name, after.saturating_sub(before));
    }
    Ok(notes)
}

/// What the kernel counts of it.
fn counters() -> [(&'static str, u64); 3] {
    let text = std::fs::read_to_string("/proc/self/net/netstat").unwrap_or_default();
    [
        ("SyncookiesSent", "cookies"),
        ("TCPReqQFullDoCookies", "full, with cookies"),
        ("ListenDrops", "dropped"),
    ]
    .map(|(name, ours)| (ours, counter(&text, name)))
}

/// A counter of `/proc/net/netstat`: lines in pairs, of names and of numbers.
fn counter(text: &str, name: &str) -> u64 {
    let lines: Vec<&str> = text.lines().collect();
    let of = |pair: &[&str]| {
        let [names, numbers] = pair else { return None };
        let at = names.split_ascii_whitespace().position(|word| word == name)?;
        numbers.split_ascii_whitespace().nth(at)?.parse().ok()
    };
    lines.chunks(2).find_map(of).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outside_nothing_is_sent() {
        assert!(!is_inside());
        assert!(flood(9, 1.0, 0.1).is_err());
    }

    #[test]
    fn a_namespace_with_a_way_out_is_none() {
        let table = |names: &[&str]| {
            let lines: String = names.iter().map(|name| format!("  {name}: 0 0\n")).collect();
            format!("Inter-|   Receive\n face |bytes\n{lines}")
        };
        assert!(is_closed(&table(&["lo"])) && is_closed(&table(&["lo", "void", "void1"])));
        assert!(!is_closed(&table(&["lo", "eth0"])) && !is_closed(&table(&[])) && !is_closed(""));
    }

    #[test]
    fn the_target_is_this_machine_and_the_rate_is_bounded() {
        let arguments = arguments(8_080, 20_000.0);
        assert_eq!(arguments.last().unwrap(), "127.0.0.1");
        assert!(arguments.contains(&"u50".to_owned()) && !arguments.contains(&"--flood".to_owned()));
    }

    #[test]
    fn counters_are_found_by_their_names() {
        let text = "TcpExt: SyncookiesSent ListenDrops\nTcpExt: 7 9\nIpExt: InOctets\nIpExt: 5\n";
        assert_eq!((counter(text, "SyncookiesSent"), counter(text, "ListenDrops")), (7, 9));
        assert_eq!((counter(text, "InOctets"), counter(text, "Nothing")), (5, 0));
    }
}
