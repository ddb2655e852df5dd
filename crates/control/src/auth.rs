//! Who is calling.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use backend::freeze;
use backend::problem::Problem;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use model::{Digest, Event, Role, SeatId, UnixTime};
use stage::invite::{self, InviteError};
use subtle::ConstantTimeEq as _;

/// Someone whose word counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// Anyone.
    Public,
    /// Holds the operator's token.
    Operator,
    /// Holds a seat of the event in question.
    Invited { seat: SeatId, role: Role },
}

impl Caller {
    /// Whether it may make invitations and see what only those who run the event see.
    pub(crate) fn runs_event(&self) -> bool {
        matches!(self, Self::Operator | Self::Invited { role: Role::Host, .. })
    }
}

/// The operator's bearer token. Kept as its digest: comparing digests takes the same time wherever they differ, and
/// nothing of ours can print what it does not have.
#[derive(Clone)]
pub(crate) struct OperatorToken {
    digest: Digest,
}

impl OperatorToken {
    /// Reads `run/operator-token`, or makes it: 256 random bits, mode 0600.
    pub(crate) fn load_or_make(path: &Path) -> io::Result<Self> {
        let fresh = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
        freeze::write_new(path, format!("{fresh}\n").as_bytes(), true)?;
        let token = std::fs::read_to_string(path)?;
        let token = token.trim();
        if token.len() < 16 {
            let message = format!("{} holds no token: 16 characters at the least are needed", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(Self { digest: Digest::of(token.as_bytes()) })
    }

    fn is(&self, token: &str) -> bool {
        Digest::of(token.as_bytes()).0.ct_eq(&self.digest.0).into()
    }
}

/// Finds out who calls, by the `Authorization` header. An invitation counts for its own event alone; without `event`
/// only the operator's token does.
pub(crate) fn caller(
    headers: &HeaderMap,
    operator: &OperatorToken,
    event: Option<&Event>,
    now: UnixTime,
) -> Result<Caller, Problem> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(Caller::Public) };
    let token = value.to_str().ok().and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
    });
    let token = token.ok_or_else(|| unauthorized("Authorization: Bearer and a token are expected"))?;
    if operator.is(token) {
        return Ok(Caller::Operator);
    }
    let Some(event) = event else { return Err(unauthorized("the token is not the operator's")) };
    match invite::verify(token, event, now) {
        Ok(invite) => Ok(Caller::Invited { seat: invite.seat, role: invite.role }),
        Err(error @ (InviteError::Foreign | InviteError::Revoked)) => Err(forbidden(error.to_string())),
        Err(error) => Err(unauthorized(error.to_string())),
    }
}

/// 401.
pub(crate) fn unauthorized(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", "This needs a token that is known here")
        .detail(detail)
        .header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
}

/// 403.
pub(crate) fn forbidden(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "forbidden", "This is not for the holder of this token")
        .detail(detail)
}

/// Failed attempts to be someone, by network: each may fail [`Self::BURST`] times at once and once every
/// [`Self::REFILL`] from then on. Guessing 256 bits is hopeless anyway; this keeps the attempt from costing us.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    /// When the network will have none of its failures left on record.
    clear_at: Mutex<BTreeMap<IpAddr, Instant>>,
}

impl Attempts {
    const BURST: u32 = 100;
    const REFILL: Duration = Duration::from_millis(200);
    const NETWORKS_MAX: usize = 4_096;

    /// Whether `peer` may try, given what it did before.
    pub(crate) fn check(&self, peer: IpAddr, now: Instant) -> Result<(), Problem> {
        let clear_at = self.lock().get(&network(peer)).copied();
        let over = Self::REFILL * Self::BURST;
        match clear_at.map(|at| at.saturating_duration_since(now)) {
            Some(left) if left > over => Err(Problem::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too-many-attempts",
                "Too many failed attempts from this network",
            )
            .header(header::RETRY_AFTER, HeaderValue::from((left - over).as_secs() + 1))),
            _ => Ok(()),
        }
    }

    /// Notes a failure.
    pub(crate) fn failed(&self, peer: IpAddr, now: Instant) {
        let mut table = self.lock();
        if table.len() >= Self::NETWORKS_MAX {
            table.retain(|_, clear_at| *clear_at > now);
        }
        // A full table forgets nobody it knows and learns nobody new.
        let room = table.len() < Self::NETWORKS_MAX;
        match table.get_mut(&network(peer)) {
            Some(clear_at) => *clear_at = (*clear_at).max(now) + Self::REFILL,
            None if room => _ = table.insert(network(peer), now + Self::REFILL),
            None => {}
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<IpAddr, Instant>> {
        // Nothing that can panic happens under the lock.
        self.clear_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One IPv4 address, or the /64 of an IPv6 address.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) >> 64 << 64).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn the_token_is_made_once_and_is_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("operator-token");
        let made = OperatorToken::load_or_make(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(made.is(text.trim()) && !made.is("") && !made.is(&text));
        assert!(OperatorToken::load_or_make(&path).unwrap().is(text.trim()));
        std::fs::write(&path, "short").unwrap();
        assert!(OperatorToken::load_or_make(&path).is_err());
    }

    #[test]
    fn who_fails_too_often_waits() {
        let (attempts, start) = (Attempts::default(), Instant::now());
        let peer: IpAddr = "2001:db8::1".parse().unwrap();
        for _ in 0..=Attempts::BURST {
            assert!(attempts.check(peer, start).is_ok());
            attempts.failed(peer, start);
        }
        assert!(attempts.check("2001:db8::2".parse().unwrap(), start).is_err(), "the same network");
        assert!(attempts.check("2001:db8:0:1::1".parse().unwrap(), start).is_ok());
        assert!(attempts.check(peer, start + Attempts::REFILL).is_ok());
        for n in 0..2 * Attempts::NETWORKS_MAX as u32 {
            attempts.failed(std::net::Ipv4Addr::from(n).into(), start);
        }
        assert!(attempts.lock().len() <= Attempts::NETWORKS_MAX);
    }
}
