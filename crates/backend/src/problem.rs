//! Errors as `application/problem+json` (RFC 9457).

use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;

/// One answer that says what went wrong. Its `type` is stable: `urn:minassa:problem:{kind}`.
#[derive(Clone, Debug)]
pub struct Problem {
    status: StatusCode,
    kind: &'static str,
    title: &'static str,
    detail: String,
    invalid: Vec<InvalidField>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// One value that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InvalidField {
    /// Its key.
    pub key: String,
    /// What was given, shortened to 80 characters.
    pub value: String,
    /// What is allowed.
    pub allowed: String,
}

#[derive(Serialize)]
struct Body<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    #[serde(skip_serializing_if = "str::is_empty")]
    detail: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    invalid: &'a [InvalidField],
}

impl Problem {
    /// A problem of the kind `kind` (lower case, dashes), which `title` names in a few words.
    pub fn new(status: StatusCode, kind: &'static str, title: &'static str) -> Self {
        Self { status, kind, title, detail: String::new(), invalid: Vec::new(), headers: Vec::new() }
    }

    /// What is wrong in this case, for a person.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    /// Names a value that was refused and what is allowed instead.
    #[must_use]
    pub fn invalid(mut self, key: &str, value: &str, allowed: &str) -> Self {
        self.invalid.push(InvalidField {
            key: key.to_owned(),
            value: value.chars().take(80).collect(),
            allowed: allowed.to_owned(),
        });
        self
    }

    /// Adds a header (`Retry-After`, `WWW-Authenticate`, …).
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The status it answers with.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// 404: nothing has this address.
    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "There is nothing at this address")
    }

    /// 404: no such event.
    pub fn unknown_event(event: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "unknown-event", "There is no such event").invalid(
            "event",
            event,
            "the slug of an event",
        )
    }

    /// 500: our fault; what exactly belongs into the log, not into the answer.
    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "The server failed to do this")
    }

    /// 503: not now.
    pub fn unavailable(detail: impl Into<String>, retry_after_s: u32) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "The server cannot do this now")
            .detail(detail)
            .header(header::RETRY_AFTER, HeaderValue::from(retry_after_s))
    }
}

impl Problem {
    fn body(&self) -> Vec<u8> {
        let body = Body {
            r#type: format!("urn:minassa:problem:{}", self.kind),
            title: self.title,
            status: self.status.as_u16(),
            detail: &self.detail,
            invalid: &self.invalid,
        };
        serde_json::to_vec(&body).unwrap_or_default()
    }

    /// As the last answer of an HTTP/1.1 connection, for where no HTTP server writes it.
    pub fn to_http1(&self) -> Vec<u8> {
        let body = self.body();
        let mut answer = format!("HTTP/1.1 {}\r\n", self.status).into_bytes();
        let fixed = [
            (header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json")),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
            (header::CONTENT_LENGTH, HeaderValue::from(body.len())),
            (header::CONNECTION, HeaderValue::from_static("close")),
        ];
        for (name, value) in fixed.iter().chain(&self.headers) {
            answer.extend_from_slice(name.as_str().as_bytes());
            answer.extend_from_slice(b": ");
            answer.extend_from_slice(value.as_bytes());
            answer.extend_from_slice(b"\r\n");
        }
        answer.extend_from_slice(b"\r\n");
        answer.extend_from_slice(&body);
        answer
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, self.body()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        for (name, value) in self.headers {
            headers.append(name, value);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;

    #[tokio::test]
    async fn a_problem_says_what_is_wrong() {
        let problem = Problem::unavailable("the room is full", 5).detail("the room is \"full\"").invalid(
            "tier",
            &"9".repeat(100),
            "1, 2, 4 or 8",
        );
        let response = problem.into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
        assert_eq!(response.headers()[header::RETRY_AFTER], "5");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let expected = serde_json::json!({
            "type": "urn:minassa:problem:unavailable",
            "title": "The server cannot do this now",
            "status": 503,
            "detail": "the room is \"full\"",
            "invalid": [{ "key": "tier", "value": "9".repeat(80), "allowed": "1, 2, 4 or 8" }],
        });
        assert_eq!(body, expected);
    }
}
