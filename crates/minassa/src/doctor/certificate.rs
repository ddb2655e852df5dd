//! The certificate of the doors: is it there, is it good, is it for the names that the world knows.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use backend::tls::{Certificate, Facts};
use http::Uri;

use super::{Check, Verdict};
use crate::config::Config;

const NAME: &str = "certificate";
/// Time enough to find out why it was not renewed.
const SOON: Duration = Duration::from_secs(14 * 86_400);

pub(super) fn check(config: &Config, now: SystemTime) -> Vec<Check> {
    let (Some(certificate), Some(key)) = (&config.tls.certificate, &config.tls.key) else {
        return vec![if config.tls.self_signed { made_here() } else { none(config) }];
    };
    let mut checks = vec![match Certificate::load(certificate, key) {
        Err(error) => Check::new(NAME, Verdict::Fail, error.to_string())
            .advise("tls.certificate and tls.key name PEM files that belong together"),
        Ok(loaded) => match &loaded.facts {
            None => Check::new(NAME, Verdict::Unknown, "it can be used, but not be read in full"),
            Some(facts) => judge(facts, loaded.key.cert.len(), &hosts(config), now),
        },
    }];
    checks.extend(exposed(key));
    checks
}

fn made_here() -> Check {
    Check::new(NAME, Verdict::Warn, "made by this server itself")
        .advise("no browser trusts it unasked: for the public, set tls.certificate and tls.key")
}

fn none(config: &Config) -> Check {
    let mut config = config.clone();
    let open = crate::roles::doors(&mut config).iter().any(|(_, address)| !address.ip().is_loopback());
    if open {
        Check::new(NAME, Verdict::Warn, "none: doors that others can reach speak plain HTTP")
            .advise("browsers give no microphone to such pages: set [tls], or put a proxy before all doors")
    } else {
        Check::new(NAME, Verdict::Ok, "none: the doors speak plain HTTP, to this machine alone")
    }
}

fn judge(facts: &Facts, chain: usize, hosts: &[String], now: SystemTime) -> Check {
    let found = format!("for {}", facts.names.join(", "));
    let missing: Vec<_> = hosts.iter().filter(|host| !facts.covers(host)).map(String::as_str).collect();
    let left = facts.not_after.duration_since(now);
    let days = left.as_ref().map_or(0, |left| left.as_secs() / 86_400);
    if now < facts.not_before {
        return Check::new(NAME, Verdict::Fail, format!("{found}; not good yet"))
            .advise("is the clock of this machine right?");
    }
    if left.is_err() {
        return Check::new(NAME, Verdict::Fail, format!("{found}; it has expired")).advise("renew it");
    }
    if !missing.is_empty() {
        return Check::new(NAME, Verdict::Fail, format!("{found}; not for {}", missing.join(", ")))
            .advise("addresses of the doors are set to these names: have them in the certificate");
    }
    let found = format!("{found}; good for {days} days");
    if left.is_ok_and(|left| left < SOON) {
        return Check::new(NAME, Verdict::Warn, found).advise("renew it; the server takes it over by itself");
    }
    if chain == 1 && !facts.self_issued {
        return Check::new(NAME, Verdict::Warn, format!("{found}; alone in its file"))
            .advise("most authorities want theirs behind it in the same file: the full chain");
    }
    Check::new(NAME, Verdict::Ok, found)
}

/// The hosts of the addresses that the world is told.
fn hosts(config: &Config) -> Vec<String> {
    let control = &config.control;
    let told = [
        &control.public_url,
        &control.push_url,
        &control.stage_url,
        &control.files_url,
        &config.edge.files_url,
    ];
    let mut hosts: Vec<String> = told
        .into_iter()
        .flatten()
        .filter_map(|url| url.parse::<Uri>().ok()?.host().map(str::to_owned))
        .collect();
    hosts.sort();
    hosts.dedup();
    hosts
}

/// A key that everybody may read.
fn exposed(key: &Path) -> Option<Check> {
    let mode = std::fs::metadata(key).ok()?.permissions().mode() & 0o777;
    (mode & 0o007 != 0).then(|| {
        Check::new("certificate key", Verdict::Warn, format!("{} has the mode {mode:o}", key.display()))
            .advise("chmod o= on it: everybody on this machine may read it")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use backend::tls::OwnCertificate;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn a_certificate_is_judged_by_its_time_and_names() {
        let now = SystemTime::now();
        let facts = |names: &[&str], before: u64, left: u64| Facts {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            not_before: now - DAY * u32::try_from(before).unwrap(),
            not_after: now + DAY * u32::try_from(left).unwrap(),
            self_issued: false,
        };
        let hosts = ["talk.example".to_owned()];
        let check = |facts: &Facts, chain, now| judge(facts, chain, &hosts, now).verdict;
        let good = facts(&["talk.example"], 1, 80);
        assert_eq!(check(&good, 2, now), Verdict::Ok);
        assert_eq!(check(&good, 1, now), Verdict::Warn);
        assert_eq!(check(&facts(&["talk.example"], 1, 13), 2, now), Verdict::Warn);
        assert_eq!(check(&facts(&["*.example"], 1, 80), 2, now), Verdict::Ok);
        assert_eq!(check(&facts(&["other.example"], 1, 80), 2, now), Verdict::Fail);
        assert_eq!(check(&good, 2, now + 81 * DAY), Verdict::Fail);
        assert_eq!(check(&good, 2, now - 2 * DAY), Verdict::Fail);
    }

    #[test]
    fn the_configuration_decides_what_is_looked_at() {
        let directory = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let one = |config: &Config| check(config, now).remove(0);
        let mut config = Config::default();
        assert_eq!(one(&config).verdict, Verdict::Ok);
        config.edge.push_listen = "0.0.0.0:8081".parse().unwrap();
        assert_eq!(one(&config).verdict, Verdict::Warn);
        config.tls.self_signed = true;
        assert_eq!(one(&config).verdict, Verdict::Warn);

        config.tls.self_signed = false;
        let path = directory.path().join("both.pem");
        config.tls.certificate = Some(path.clone());
        config.tls.key = Some(path.clone());
        assert_eq!(one(&config).verdict, Verdict::Fail);
        let made = OwnCertificate::make(&["talk.example".to_owned()], now).unwrap();
        std::fs::write(&path, made.pem()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        config.control.public_url = Some("https://talk.example".into());
        let checks = check(&config, now);
        assert_eq!((checks.len(), checks[0].verdict), (1, Verdict::Ok), "{}", checks[0].found);
        config.control.push_url = Some("https://push.talk.example:8443".into());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let checks = check(&config, now);
        assert_eq!((checks[0].verdict, checks[1].verdict), (Verdict::Fail, Verdict::Warn));
        assert!(checks[0].found.contains("push.talk.example"), "{}", checks[0].found);
    }
}
