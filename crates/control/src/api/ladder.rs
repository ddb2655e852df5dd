//! The ladder, for the operator: where it stands and why, what it would do by itself, and what it is told to do.

use std::sync::Arc;
use std::time::Instant;

use admission::ladder::{Admission, Level, Measures, Orders, Pressures, Resource};
use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use backend::problem::Problem;
use http::{HeaderValue, header};
use serde::Serialize;
use utoipa::ToSchema;

use super::operator_only;
use super::types::{BilingualView, ProblemView};
use crate::fields::Fields;
use crate::ladder::sentence;
use crate::state::Control;
use crate::steering::CAP_MAX;

const PIN: &str = "a level, 0 to 6";
const CAP: &str = "a number of listeners, 0 to 100000000";

/// What the operator wants of the ladder; `null` takes an order back, what is missing stays.
#[derive(Debug, Default, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = LadderChange)]
pub(crate) struct LadderChangeBody {
    /// The level to stand at, whatever is measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 6)]
    pub(crate) pin: Option<u8>,
    /// At most so many live listeners; whoever listens stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 100000000)]
    pub(crate) cap: Option<u64>,
}

/// Where the ladder stands.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Ladder)]
pub(crate) struct LadderView {
    /// The level in force, 0 (all is well) to 6.
    #[schema(maximum = 6)]
    level: u8,
    /// The level without a pin.
    #[schema(maximum = 6)]
    would: u8,
    /// What is in force, as listeners read it.
    sentence: BilingualView,
    /// The level that an operator has pinned.
    pin: Option<u8>,
    /// The most live listeners that an operator allows.
    cap: Option<u64>,
    /// The scarcest resource, if any calls for a level.
    binding: Option<&'static str>,
    pressures: PressuresView,
    measures: MeasuresView,
    /// Listeners of all edges.
    listeners: u64,
    edges: Vec<EdgeView>,
}

/// How near each resource is to its end: 0 untouched, 1 used up.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Pressures)]
struct PressuresView {
    processor: f64,
    #[serde(rename = "loop")]
    turns: f64,
    line: f64,
    files: f64,
    memory: f64,
    listeners: f64,
}

impl From<&Pressures> for PressuresView {
    fn from(pressures: &Pressures) -> Self {
        // As exact as anybody reads it.
        let of = |resource| (pressures[resource] * 1e4).round() / 1e4;
        Self {
            processor: of(Resource::Processor),
            turns: of(Resource::Loop),
            line: of(Resource::Line),
            files: of(Resource::Files),
            memory: of(Resource::Memory),
            listeners: of(Resource::Listeners),
        }
    }
}

/// What is in force.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Measures)]
struct MeasuresView {
    /// Whether there are reactions, avatars and exact counts.
    extras: bool,
    /// Parts a write for those who join: 1, 2, 4 or 8.
    newcomers_tier: u8,
    /// Parts a write for everybody.
    everyones_tier: u8,
    /// The largest Opus rendition for those who join.
    newcomers_cap: Option<&'static str>,
    /// The largest Opus rendition for everybody.
    everyones_cap: Option<&'static str>,
    /// Whether those who join are sent to the CDN.
    newcomers_to_cdn: bool,
    /// `open`, `waiting` or `frozen`.
    admission: &'static str,
    /// Whether newcomers have to prove work.
    challenge: bool,
}

impl From<&Measures> for MeasuresView {
    fn from(measures: &Measures) -> Self {
        Self {
            extras: measures.extras,
            newcomers_tier: measures.newcomers_tier.parts(),
            everyones_tier: measures.everyones_tier.parts(),
            newcomers_cap: measures.newcomers_cap.map(|rendition| rendition.name()),
            everyones_cap: measures.everyones_cap.map(|rendition| rendition.name()),
            newcomers_to_cdn: measures.newcomers_to_cdn,
            admission: match measures.admission {
                Admission::Open => "open",
                Admission::Waiting => "waiting",
                Admission::Frozen => "frozen",
            },
            challenge: measures.challenge,
        }
    }
}

/// One edge.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LadderEdge)]
struct EdgeView {
    edge: String,
    /// Whether it reported within the last five seconds.
    alive: bool,
    /// The level in force there.
    #[schema(maximum = 6)]
    level: u8,
    listeners: u64,
    listeners_max: u64,
    pressures: PressuresView,
}

/// Where the ladder stands, and what it would do by itself.
#[utoipa::path(get, path = "/api/ladder", operation_id = "show_ladder", tag = "ladder",
    responses((status = 200, body = LadderView), (status = 401, body = ProblemView)),
    security(("operator" = [])))]
pub(super) async fn show(State(control): State<Arc<Control>>, request: Request) -> Result<Response, Problem> {
    let (head, _) = request.into_parts();
    operator_only(&control, &head)?;
    Ok(answer(&control))
}

/// Pins a level, sets a cap, or takes either back. Counts from the next second on, and after a restart too.
#[utoipa::path(patch, path = "/api/ladder", operation_id = "change_ladder", tag = "ladder", request_body = LadderChangeBody,
    responses(
        (status = 200, body = LadderView), (status = 400, body = ProblemView), (status = 401, body = ProblemView),
        (status = 415, body = ProblemView), (status = 422, body = ProblemView)),
    security(("operator" = [])))]
pub(super) async fn change(
    State(control): State<Arc<Control>>,
    request: Request,
) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    operator_only(&control, &head)?;
    let mut fields = Fields::of(&head.headers, body).await?;
    let pin =
        fields.take_nullable("pin", PIN, |value| Level::from_number(u8::try_from(value.as_u64()?).ok()?));
    let cap = fields.take_nullable("cap", CAP, |value| value.as_u64().filter(|cap| *cap <= CAP_MAX));
    fields.finish()?;
    control
        .order(|orders| Orders { pin: pin.unwrap_or(orders.pin), cap: cap.unwrap_or(orders.cap), ..orders })
        .await?;
    Ok(answer(&control))
}

fn answer(control: &Control) -> Response {
    let edges = {
        let observed = control.observed();
        let edges = observed.at_edges(Instant::now());
        let view = |(name, edge): (&&str, &crate::steering::AtEdge)| EdgeView {
            edge: (*name).to_owned(),
            alive: edge.report.is_alive(),
            level: edge.level.number(),
            listeners: edge.report.load.listeners.used,
            listeners_max: edge.report.load.listeners.limit,
            pressures: (&edge.report.load.pressures()).into(),
        };
        edges.iter().map(view).collect()
    };
    let steering = control.steering();
    let (decision, orders) = (steering.decision(), steering.orders());
    let [ar, en] = sentence(decision.level, &decision.measures);
    let view = LadderView {
        level: decision.level.number(),
        would: decision.would.number(),
        sentence: BilingualView { ar: ar.to_owned(), en: en.to_owned() },
        pin: orders.pin.map(Level::number),
        cap: orders.cap,
        binding: decision.binding.map(Resource::name),
        pressures: (&decision.pressures).into(),
        measures: (&decision.measures).into(),
        listeners: decision.listeners,
        edges,
    };
    ([(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))], Json(view)).into_response()
}
