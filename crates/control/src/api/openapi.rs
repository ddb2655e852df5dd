//! The API as OpenAPI 3.1.

use std::sync::LazyLock;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};

use super::{events, evidence, invites, ladder, queue, slate, status, ticket};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Minassa",
        description = "Events of live talk: made, shown, changed; invitations; tickets. Errors are \
            `application/problem+json` with a stable `type`.",
        license(name = "MIT OR Apache-2.0")
    ),
    paths(
        events::list,
        events::create,
        events::show,
        events::change,
        slate::upload,
        slate::remove,
        invites::create,
        invites::revoke,
        ticket::issue,
        ticket::revoke,
        queue::show,
        queue::commitment,
        queue::draw,
        status::show,
        evidence::verdict,
        evidence::ledger,
        evidence::report,
        ladder::show,
        ladder::change,
    ),
    tags(
        (name = "events", description = "Events and their slates."),
        (name = "invitations", description = "Who may speak."),
        (name = "listening", description = "What listeners need."),
        (name = "evidence", description = "What the load was, and what that is said from."),
        (name = "ladder", description = "How far the show has stepped down.")
    )
)]
struct Api;

/// The whole document as JSON.
fn document() -> &'static str {
    static DOCUMENT: LazyLock<String> = LazyLock::new(|| {
        let mut api = Api::openapi();
        let bearer = |description: &str| {
            let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(description));
            SecurityScheme::Http(scheme.build())
        };
        let components = api.components.get_or_insert_default();
        components.add_security_scheme("operator", bearer("The operator's token (`run/operator-token`)."));
        components.add_security_scheme("invitation", bearer("A host's invitation to the event."));
        let mut json = api.to_pretty_json().expect("the document is made of text and numbers");
        json.push('\n');
        json
    });
    &DOCUMENT
}

/// `GET /api/openapi.json`.
pub(super) async fn serve() -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=60")),
    ];
    (headers, document()).into_response()
}
