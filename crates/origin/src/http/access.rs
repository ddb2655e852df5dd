//! Who is asking: the holder of an invitation, or the operator.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::{Body, to_bytes};
use axum::extract::FromRequestParts;
use backend::problem::Problem;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, header};
use model::{Digest, SeatId};
use serde::de::DeserializeOwned;
use stage::Actor;
use stage::invite::{self, Invite, InviteError};
use subtle::ConstantTimeEq as _;

use super::problems;
use crate::counters;
use crate::directory::View;

/// How long the operator's token is believed without looking at its file again.
const TOKEN_FRESH: Duration = Duration::from_secs(1);
/// Largest token file read.
const TOKEN_BYTES_MAX: u64 = 4_096;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Who {
    Operator,
    Seat(Invite),
}

impl Who {
    pub(super) fn actor(&self) -> Actor {
        match self {
            Self::Operator => Actor::Operator,
            Self::Seat(invite) => Actor::Seat(invite.seat),
        }
    }

    /// Whether it may start, hold and end the show.
    pub(super) fn directs(&self) -> bool {
        match self {
            Self::Operator => true,
            Self::Seat(invite) => invite.role.directs(),
        }
    }

    /// The seat it holds.
    pub(super) fn seat(&self) -> Option<SeatId> {
        match self {
            Self::Operator => None,
            Self::Seat(invite) => Some(invite.seat),
        }
    }
}

/// The operator's token: `run/operator-token`, written by the server's other processes, perhaps later than we start.
#[derive(Debug)]
pub(crate) struct OperatorToken {
    path: PathBuf,
    cached: Mutex<Option<(Instant, Option<Digest>)>>,
}

impl OperatorToken {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, cached: Mutex::new(None) }
    }

    /// Whether `token` is the operator's. Takes the same time whichever byte is wrong.
    fn matches(&self, token: &str) -> bool {
        let expected = self.digest();
        let given = Digest::of(token.as_bytes());
        expected.is_some_and(|expected| bool::from(expected.0.ct_eq(&given.0)))
    }

    fn digest(&self) -> Option<Digest> {
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        match &*cached {
            Some((at, digest)) if now.duration_since(*at) < TOKEN_FRESH => *digest,
            _ => {
                // One small file, read at most once a second.
                let digest = self.read();
                *cached = Some((now, digest));
                digest
            }
        }
    }

    fn read(&self) -> Option<Digest> {
        use std::io::Read as _;
        let mut text = String::new();
        std::fs::File::open(&self.path).ok()?.take(TOKEN_BYTES_MAX).read_to_string(&mut text).ok()?;
        let token = text.trim();
        (token.len() >= 16).then(|| Digest::of(token.as_bytes()))
    }
}

/// The bearer token of a request.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Who asks, by `Authorization: Bearer {invitation or operator token}`.
pub(super) fn identify(headers: &HeaderMap, view: &View, operator: &OperatorToken) -> Result<Who, Problem> {
    let who = match bearer(headers) {
        None => Err(problems::unauthorized("Bearer", "The request has no Authorization: Bearer header.")),
        Some(token) => match invite::verify(token, &view.event, view.now()) {
            Ok(invite) => Ok(Who::Seat(invite)),
            Err(InviteError::Wrong) if operator.matches(token) => Ok(Who::Operator),
            Err(error) => Err(problems::invite(error, "Bearer")),
        },
    };
    who.inspect_err(|_| counters::INVITES_REFUSED.increment())
}

/// The holder of an invitation; the operator has no seat.
pub(super) fn identify_seat(
    headers: &HeaderMap,
    view: &View,
    operator: &OperatorToken,
) -> Result<Invite, Problem> {
    match identify(headers, view, operator)? {
        Who::Seat(invite) => Ok(invite),
        Who::Operator => {
            Err(problems::forbidden("The operator has no seat; an invitation is needed to speak."))
        }
    }
}

/// Names in an address, as `axum::extract::Path` reads them. What cannot be read (no UTF-8) is nobody's name: the
/// answer is a problem like any other.
pub(super) struct Path<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read = axum::extract::Path::from_request_parts(parts, state).await;
        read.map(|axum::extract::Path(names)| Self(names)).map_err(|_| Problem::not_found())
    }
}

/// A request's whole body, at most `limit` bytes.
pub(super) async fn body(body: Body, limit: usize) -> Result<Bytes, Problem> {
    use std::error::Error as _;
    to_bytes(body, limit).await.map_err(|error| {
        let mut source: Option<&dyn std::error::Error> = error.source();
        while let Some(inner) = source {
            if inner.is::<http_body_util::LengthLimitError>() {
                return problems::too_large(limit);
            }
            source = inner.source();
        }
        problems::bad_request("The body broke off.")
    })
}

/// Whether a `Content-Type` is this one, whatever its parameters.
pub(super) fn is_type(headers: &HeaderMap, wanted: &str) -> bool {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    given.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operator_is_known_by_a_file_that_may_come_later() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("operator-token");
        let token = OperatorToken::new(path.clone());
        assert!(!token.matches(""));
        std::fs::write(&path, "0123456789abcdef0123\n").unwrap();
        // The answer of a moment ago is kept; a fresh look finds the file.
        *token.cached.lock().unwrap() = None;
        assert!(token.matches("0123456789abcdef0123"));
        assert!(!token.matches("0123456789abcdef0124"));
        assert!(!token.matches(""));
        std::fs::write(&path, "\n").unwrap();
        *token.cached.lock().unwrap() = None;
        assert!(!token.matches(""), "an empty file opens nothing");
    }
}
