//! The stage door: one TCP port for the stage page, WHIP, Icecast sources and the stage API.
//!
//! Icecast sources speak what no HTTP server takes (`SOURCE` over HTTP/1.0 without a length), so the first bytes of
//! each connection decide who reads it: [`ingest`], or hyper with the router below.

mod access;
mod api;
mod head;
mod ingest;
mod page;
mod problems;
mod whip;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use backend::http::proxy::Proxies;
use backend::http::{
    Connection, DoorCounts, Limits, Place, Prefixed, TlsDoor, accept_loop, begin, serve_connection,
};
use backend::problem::Problem;
use backend::tls::Tls;
use bytes::{Bytes, BytesMut};
use http::{HeaderName, Method, StatusCode, header};
use model::EventSlug;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tower_http::cors::{Any, CorsLayer};

use crate::counters;
use crate::directory::{Directory, View};
use crate::media::{MediaHealth, Order, SessionId};

pub(crate) use access::OperatorToken;
pub(crate) use whip::WhipSessions;

/// Streams of snapshots at once.
const WATCHERS_MAX: usize = 512;
/// Longest wait for the media thread: it turns every 10 ms.
const ORDER_PATIENCE: Duration = Duration::from_secs(2);
/// Longest time for a connection's first bytes.
const FIRST_BYTES: Duration = Duration::from_secs(10);

pub(crate) fn fuzz(data: &[u8]) {
    head::fuzz(data);
}

/// What requests at the stage door need.
pub(crate) struct Door {
    pub(crate) directory: Arc<Directory>,
    pub(crate) orders: mpsc::Sender<Order>,
    pub(crate) health: Arc<MediaHealth>,
    pub(crate) candidates: Vec<SocketAddr>,
    pub(crate) operator: OperatorToken,
    pub(crate) whip: Arc<WhipSessions>,
    pub(crate) watchers: Arc<Semaphore>,
    /// Icecast sources at once, those not let in yet included.
    pub(crate) streams: Arc<Semaphore>,
    pub(crate) ready: AtomicBool,
    /// The certificate of the door, if it has one.
    pub(crate) tls: Option<Arc<Tls>>,
    /// The proxies of the door, if it has any.
    pub(crate) proxies: Proxies,
    /// What happens at the door.
    pub(crate) counts: Arc<DoorCounts>,
    pub(crate) shutdown: CancellationToken,
    sessions: AtomicU64,
}

impl Door {
    pub(crate) fn new(
        directory: Arc<Directory>,
        orders: mpsc::Sender<Order>,
        health: Arc<MediaHealth>,
        candidates: Vec<SocketAddr>,
        operator: OperatorToken,
        streams_max: usize,
        shutdown: CancellationToken,
    ) -> Self {
        Self {
            directory,
            orders,
            health,
            candidates,
            operator,
            whip: Arc::default(),
            watchers: Arc::new(Semaphore::new(WATCHERS_MAX)),
            streams: Arc::new(Semaphore::new(streams_max)),
            ready: AtomicBool::new(false),
            tls: None,
            proxies: Proxies::default(),
            counts: Arc::default(),
            shutdown,
            sessions: AtomicU64::new(1),
        }
    }

    fn next_session(&self) -> SessionId {
        SessionId(self.sessions.fetch_add(1, Ordering::Relaxed))
    }

    /// An event by the name in an address.
    fn event(&self, name: &str) -> Result<Arc<View>, Problem> {
        let slug: EventSlug = name.parse().map_err(|_| Problem::unknown_event(name))?;
        match self.directory.view(&slug) {
            Some(view) => Ok(view),
            None if !self.ready.load(Ordering::Relaxed) => {
                Err(Problem::unavailable("The stage is being set up again.", 1))
            }
            None => Err(Problem::unknown_event(name)),
        }
    }

    /// Sends an order and waits for what comes of it.
    async fn ask<T>(&self, order: Order, reply: oneshot::Receiver<T>) -> Result<T, Problem> {
        let asked = async {
            self.orders.send(order).await.ok()?;
            reply.await.ok()
        };
        match timeout(ORDER_PATIENCE, asked).await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) | Err(_) => {
                counters::COMMANDS_LOST.increment();
                Err(Problem::unavailable("The stage is busy or being shut down.", 1))
            }
        }
    }
}

/// Serves the door until the shutdown.
pub(crate) async fn serve(
    listener: TcpListener,
    door: Arc<Door>,
    connections_max: usize,
    tls: Option<TlsDoor>,
) {
    let limits = Arc::new(Limits {
        connections_max,
        body_bytes_max: whip::OFFER_BYTES_MAX,
        http2: false,
        drain: Duration::from_millis(700),
        proxies: door.proxies.clone(),
        counts: door.counts.clone(),
        ..Limits::default()
    });
    let router = match &tls {
        Some(tls) => tls.dress(router(door.clone())),
        None => router(door.clone()),
    };
    let shutdown = door.shutdown.clone();
    accept_loop(listener, &limits.clone(), shutdown.clone(), |stream, mut place| {
        let (router, limits, door, tls) = (router.clone(), limits.clone(), door.clone(), tls.clone());
        async move {
            if let Some(stream) = begin(stream, &mut place, tls.as_ref(), &limits, &door.shutdown).await {
                connection(stream, place, router, &limits, door).await;
            }
        }
    })
    .await;
}

async fn connection(mut stream: Connection, place: Place, router: Router, limits: &Limits, door: Arc<Door>) {
    let Ok(Some((first, is_source))) = timeout(FIRST_BYTES, first_bytes(&mut stream)).await else { return };
    let shutdown = door.shutdown.clone();
    let stream = Prefixed::new(first, stream);
    if is_source {
        // What is on the stage makes room for nobody.
        place.work();
        ingest::serve(stream, door).await;
        drop(place);
    } else {
        serve_connection(stream, place, router, limits, shutdown).await;
    }
}

/// Reads until it is clear who is to read the connection: at most a dozen bytes.
async fn first_bytes(stream: &mut Connection) -> Option<(Bytes, bool)> {
    let mut bytes = BytesMut::with_capacity(256);
    loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        if let Some(is_source) = head::is_source(&bytes) {
            return Some((bytes.freeze(), is_source));
        }
    }
}

fn router(door: Arc<Door>) -> Router {
    let cors = CorsLayer::new()
        // Nothing here is opened by a cookie; who has the secret may come from anywhere.
        .allow_origin(Any)
        .allow_methods([Method::GET, Method::POST, Method::PATCH, Method::DELETE, Method::OPTIONS])
        .allow_headers([header::AUTHORIZATION, header::CONTENT_TYPE, header::IF_MATCH])
        .expose_headers([
            header::LOCATION,
            header::LINK,
            header::RETRY_AFTER,
            HeaderName::from_static("accept-patch"),
        ])
        .max_age(Duration::from_secs(600));
    Router::new()
        .route("/whip/{event}", post(whip::offer).get(whip::no_get))
        .route("/whip/{event}/{session}", axum::routing::delete(whip::end).patch(whip::trickle))
        .route("/api/stage/{event}", get(api::snapshot))
        .route("/api/stage/{event}/watch", get(api::watch))
        .route("/api/stage/{event}/seats/{seat}", post(api::seat))
        .route("/api/stage/{event}/state", post(api::state))
        .route("/e/{event}/stage", get(page::stage))
        .route("/assets/{*path}", get(page::asset))
        .route("/metrics", get(page::metrics))
        .route("/healthz", get(page::healthz))
        .route("/readyz", get(page::readyz))
        .fallback(async || Problem::not_found())
        .method_not_allowed_fallback(async || {
            Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method-not-allowed",
                "This address does not do that",
            )
        })
        .layer(cors)
        .with_state(door)
}
