//! Errors of the stage as HTTP has them: the one place where they become statuses.

use backend::problem::Problem;
use http::{HeaderValue, StatusCode, header};
use stage::invite::InviteError;
use stage::{AdmitError, CommandError, DirectError};

use crate::media::{CommandRefusal, DirectRefusal, OfferError, Refusal};

/// No credentials, or none that are any good: 401, naming the scheme that is wanted.
pub(super) fn unauthorized(scheme: &'static str, detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", "An invitation is needed")
        .detail(detail)
        .header(header::WWW_AUTHENTICATE, HeaderValue::from_static(scheme))
}

/// What an invitation that opens nothing is answered with.
pub(super) fn invite(error: InviteError, scheme: &'static str) -> Problem {
    let refused = |kind| {
        Problem::new(StatusCode::FORBIDDEN, kind, "This invitation does not open this")
            .detail(error.to_string())
    };
    match error {
        InviteError::Wrong | InviteError::Expired => unauthorized(scheme, error.to_string()),
        InviteError::Foreign => refused("foreign-invite"),
        InviteError::Revoked => refused("revoked-invite"),
        InviteError::Unlisted => {
            refused("unknown-invite").header(header::RETRY_AFTER, HeaderValue::from_static("1"))
        }
    }
}

pub(super) fn forbidden(detail: &str) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "forbidden", "Your role does not allow this").detail(detail)
}

fn conflict(detail: String) -> Problem {
    Problem::new(StatusCode::CONFLICT, "conflict", "The show does not allow this now").detail(detail)
}

pub(super) fn refusal(error: Refusal, event: &str) -> Problem {
    match error {
        Refusal::UnknownEvent => Problem::unknown_event(event),
        Refusal::TooMany => Problem::unavailable(error.to_string(), 5),
        Refusal::Stage(AdmitError::UnknownSeat) => invite(InviteError::Revoked, "Bearer"),
        Refusal::Stage(AdmitError::SeatFull) => {
            Problem::new(StatusCode::CONFLICT, "seat-full", "This seat is taken").detail(error.to_string())
        }
        Refusal::Stage(AdmitError::Ended) => conflict(error.to_string()),
    }
}

pub(super) fn direct(error: DirectRefusal, event: &str) -> Problem {
    match error {
        DirectRefusal::UnknownEvent => Problem::unknown_event(event),
        DirectRefusal::Stage(DirectError::UnknownSeat) => {
            Problem::new(StatusCode::NOT_FOUND, "unknown-seat", "There is no such seat")
                .detail(error.to_string())
        }
        DirectRefusal::Stage(DirectError::Forbidden) => forbidden(&error.to_string()),
        DirectRefusal::Stage(DirectError::Ended) => conflict(error.to_string()),
    }
}

pub(super) fn command(error: CommandRefusal, event: &str) -> Problem {
    match error {
        CommandRefusal::UnknownEvent => Problem::unknown_event(event),
        CommandRefusal::Stage(CommandError::Ended | CommandError::NotLive) => conflict(error.to_string()),
    }
}

pub(super) fn offer(error: &OfferError) -> Problem {
    let (status, kind) = match error {
        OfferError::Malformed(_) | OfferError::ManyAudio(_) => (StatusCode::BAD_REQUEST, "bad-offer"),
        OfferError::NoAudio | OfferError::NoOpus | OfferError::NotSending => {
            (StatusCode::UNPROCESSABLE_ENTITY, "no-audio")
        }
    };
    Problem::new(status, kind, "The offer cannot be answered").detail(error.to_string())
}

pub(super) fn unsupported_type(wanted: &str) -> Problem {
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-type", "The body has the wrong type")
        .detail(format!("{wanted} is wanted."))
}

pub(super) fn too_large(limit: usize) -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The body is too large")
        .detail(format!("At most {limit} bytes are taken."))
}

pub(super) fn head_too_long(limit: usize) -> Problem {
    Problem::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "head-too-long", "The head is too long")
        .detail(format!("At most {limit} bytes are taken."))
}

pub(super) fn bad_request(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "bad-request", "The request cannot be read").detail(detail)
}

pub(super) fn unprocessable(key: &str, value: &str, allowed: &str) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-value", "A value is not allowed")
        .invalid(key, value, allowed)
}
