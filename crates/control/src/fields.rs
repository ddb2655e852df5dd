//! Bodies of requests, read field by field, so that every fault names its key, its value and what is allowed.

use axum::body::{Body, Bytes, to_bytes};
use backend::problem::Problem;
use http::{HeaderMap, StatusCode, header};
use http_body::Body as _;
use serde_json::{Map, Value};

/// Largest JSON body, bytes.
pub(crate) const JSON_BYTES_MAX: usize = 64 * 1024;
/// Largest JSON body that anybody may send without showing who they are, bytes.
pub(crate) const SMALL_BYTES_MAX: usize = 4 * 1024;

/// The fields of one JSON object. Take each that is known, then [`Self::finish`]: what is left is unknown and refused,
/// as is everything that was found wrong on the way.
#[derive(Debug)]
pub(crate) struct Fields {
    given: Map<String, Value>,
    known: Vec<&'static str>,
    faults: Vec<Fault>,
}

#[derive(Debug)]
struct Fault {
    key: String,
    value: String,
    allowed: String,
}

impl Fields {
    /// Reads a request's body.
    pub(crate) async fn of(headers: &HeaderMap, body: Body) -> Result<Self, Problem> {
        Self::within(JSON_BYTES_MAX, headers, body).await
    }

    /// As [`Self::of`], of a body of at most [`SMALL_BYTES_MAX`].
    pub(crate) async fn small(headers: &HeaderMap, body: Body) -> Result<Self, Problem> {
        Self::within(SMALL_BYTES_MAX, headers, body).await
    }

    async fn within(limit: usize, headers: &HeaderMap, body: Body) -> Result<Self, Problem> {
        if let Some(kind) = headers.get(header::CONTENT_TYPE) {
            let kind = kind.to_str().unwrap_or_default();
            let essence = kind.split(';').next().unwrap_or_default().trim();
            if !essence.eq_ignore_ascii_case("application/json") {
                let problem =
                    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not-json", "The body must be JSON");
                return Err(problem.invalid("content-type", kind, "application/json"));
            }
        }
        Self::parse(&read_body(body, limit).await?)
    }

    pub(crate) fn parse(json: &[u8]) -> Result<Self, Problem> {
        match serde_json::from_slice(json) {
            Ok(Value::Object(given)) => Ok(Self { given, known: Vec::new(), faults: Vec::new() }),
            Ok(other) => Err(refused().invalid("", &other.to_string(), "a JSON object")),
            Err(error) => Err(Problem::new(StatusCode::BAD_REQUEST, "malformed-json", "The body is no JSON")
                .detail(error.to_string())),
        }
    }

    /// The field `key` as `read` reads it. `None` if it is not given, or wrong, which is noted.
    pub(crate) fn take<T>(
        &mut self,
        key: &'static str,
        allowed: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Option<T> {
        self.known.push(key);
        let value = self.given.remove(key)?;
        let taken = read(&value);
        if taken.is_none() {
            self.refuse(key, &value, allowed);
        }
        taken
    }

    /// As [`Self::take`] for a field whose `null` means "none": `Some(None)`.
    pub(crate) fn take_nullable<T>(
        &mut self,
        key: &'static str,
        allowed: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Option<Option<T>> {
        self.take(key, &format!("{allowed}, or null"), |value| match value {
            Value::Null => Some(None),
            value => read(value).map(Some),
        })
    }

    /// Notes that the field `key` is missing.
    pub(crate) fn miss(&mut self, key: &str, allowed: &str) {
        self.faults.push(Fault {
            key: key.into(),
            value: String::new(),
            allowed: format!("required: {allowed}"),
        });
    }

    /// Notes a value that is not allowed.
    pub(crate) fn refuse(&mut self, key: &str, value: &Value, allowed: &str) {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        self.faults.push(Fault { key: key.into(), value, allowed: allowed.into() });
    }

    /// Whether a field is given and not taken yet.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.given.contains_key(key)
    }

    /// Everything wrong so far, as one answer.
    pub(crate) fn finish(mut self) -> Result<(), Problem> {
        let known = self.known.join(", ");
        for (key, value) in std::mem::take(&mut self.given) {
            self.refuse(&key, &value, &format!("there is no such field; there are {known}"));
        }
        if self.faults.is_empty() {
            return Ok(());
        }
        let detail: Vec<_> = self
            .faults
            .iter()
            .map(|fault| match fault.value.as_str() {
                "" => format!("{}: {}", fault.key, fault.allowed),
                value => format!("{} = {:?}: {}", fault.key, shortened(value), fault.allowed),
            })
            .collect();
        let problem = refused().detail(detail.join("; "));
        Err(self
            .faults
            .iter()
            .fold(problem, |problem, fault| problem.invalid(&fault.key, &fault.value, &fault.allowed)))
    }
}

/// The start of an answer about wrong values.
pub(crate) fn refused() -> Problem {
    Problem::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "invalid-request",
        "Something in the request is not allowed",
    )
}

/// A body of at most `limit` bytes.
pub(crate) async fn read_body(body: Body, limit: usize) -> Result<Bytes, Problem> {
    let too_large = || {
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The body is too large")
            .detail(format!("at most {limit} bytes are allowed"))
    };
    // Without waiting for what will not be read.
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large());
    }
    to_bytes(body, limit).await.map_err(|error| {
        if is_too_long(&error) {
            too_large()
        } else {
            Problem::new(StatusCode::BAD_REQUEST, "broken-body", "The body did not arrive in full")
        }
    })
}

fn is_too_long(error: &axum::Error) -> bool {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if error.is::<http_body_util::LengthLimitError>() {
            return true;
        }
        source = error.source();
    }
    false
}

fn shortened(value: &str) -> String {
    value.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::response::IntoResponse as _;

    async fn answer(problem: Problem) -> Value {
        let body = to_bytes(problem.into_response().into_body(), usize::MAX).await.unwrap();
        serde_json::from_slice(&body).unwrap()
    }

    #[tokio::test]
    async fn every_fault_is_named() {
        let mut fields = Fields::parse(br#"{"a": 5, "b": "x", "c": null, "odd": [1]}"#).unwrap();
        assert_eq!(fields.take("a", "a number", Value::as_u64), Some(5));
        assert_eq!(fields.take("b", "a number", Value::as_u64), None);
        assert_eq!(fields.take_nullable("c", "a number", Value::as_u64), Some(None));
        assert_eq!(fields.take("d", "a number", Value::as_u64), None);
        fields.miss("d", "a number");
        let answer = answer(fields.finish().unwrap_err()).await;
        assert_eq!(answer["type"], "urn:minassa:problem:invalid-request");
        let expected = serde_json::json!([
            { "key": "b", "value": "x", "allowed": "a number" },
            { "key": "d", "value": "", "allowed": "required: a number" },
            { "key": "odd", "value": "[1]", "allowed": "there is no such field; there are a, b, c, d" },
        ]);
        assert_eq!(answer["invalid"], expected);
    }

    #[tokio::test]
    async fn what_is_no_object_is_refused() {
        for (json, status) in [("[1]", 422), ("", 400), ("{", 400), ("{\"a\":1}x", 400), ("\u{FEFF}{}", 400)]
        {
            assert_eq!(answer(Fields::parse(json.as_bytes()).unwrap_err()).await["status"], status, "{json}");
        }
        let deep = "[".repeat(10_000);
        assert!(Fields::parse(deep.as_bytes()).is_err());
    }
}
