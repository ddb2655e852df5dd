//! The answer that asks for a little work first.

use admission::challenge::{ALGORITHM, Challenge, PATIENCE_S, Refusal};
use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use model::UnixTime;
use serde::Serialize;
use utoipa::ToSchema;

/// Marks an answer that is no fault of the request's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Challenged;

/// A challenge (RFC 9457, with members of its own): those of ALTCHA's proof of work, version 1, so that its clients solve it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Challenge)]
pub(super) struct ChallengeView {
    /// `urn:minassa:problem:challenge`.
    r#type: &'static str,
    /// In a few words.
    title: &'static str,
    /// 401.
    status: u16,
    /// What to do; and why what was handed in is not taken.
    detail: String,
    /// `SHA-256`.
    algorithm: &'static str,
    /// What the number is appended to, in decimal.
    salt: String,
    /// Hash of both, hex.
    challenge: String,
    /// The number is between 0 and this.
    maxnumber: u32,
    /// To be sent back as it is.
    signature: String,
    /// Until when it may be answered, RFC 3339.
    expires: String,
    /// After so many seconds it is taken without a number.
    waits_s: u64,
}

/// Asks for an answer to `challenge`. `refusal` is why the last one was not taken.
pub(super) fn challenged(challenge: Challenge, refusal: Option<Refusal>) -> Response {
    let detail = "send it again with a solution, or unsolved after the wait".to_owned();
    let detail = refusal.map_or(detail.clone(), |refusal| format!("{refusal}; {detail}"));
    let expires = i64::try_from(challenge.expires_s).unwrap_or(i64::MAX / 1_000);
    let view = ChallengeView {
        r#type: "urn:minassa:problem:challenge",
        title: "A little work first, or a little patience",
        status: StatusCode::UNAUTHORIZED.as_u16(),
        detail,
        algorithm: ALGORITHM,
        salt: challenge.salt,
        challenge: challenge.challenge,
        maxnumber: challenge.maxnumber,
        signature: challenge.signature,
        expires: UnixTime::from_millis(expires.saturating_mul(1_000)).to_string(),
        waits_s: PATIENCE_S,
    };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        // RFC 9110, section 11.6.1, wants one with every 401; no browser knows this scheme or asks for a password.
        (header::WWW_AUTHENTICATE, HeaderValue::from_static("Altcha")),
    ];
    let mut response = (StatusCode::UNAUTHORIZED, headers, Json(view)).into_response();
    response.extensions_mut().insert(Challenged);
    response
}
