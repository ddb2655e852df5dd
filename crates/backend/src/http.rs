//! Listening sockets and the accept loop, with the limits that `axum::serve` does not set.
//!
//! ```text
//! accept ──► place ──► PROXY header ──► TLS handshake ──► HTTP/1.1 or 2 ──► requests
//!   who makes room     only of proxies   in turns,         frames are         bodies keep time, and come as
//!   when it is full                      cheap sites first  worth something    they are; who sent it is known
//! ```
//!
//! Every step has its time ([`Limits`]), and whatever is refused or closed is counted ([`DoorCounts`]).

mod body;
mod doorkeeper;
mod frames;
mod guard;
#[cfg(test)]
mod http2_tests;
pub mod proxy;
#[cfg(test)]
mod proxy_tests;
#[cfg(test)]
mod serve_tests;
mod tls;
#[cfg(test)]
mod tls_tests;
mod turns;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use admission::doorstep::Room;
use admission::ledger::Ja4;
use axum::body::Body;
use axum::response::IntoResponse as _;
use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::Limited;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use crate::problem::Problem;
use body::{Activity, Counted, Look, Paced};
use doorkeeper::{Doorkeeper, Share};
use frames::Frames;
use guard::WriteGuard;
use proxy::Proxies;

pub use doorkeeper::{DoorCounts, Place};
pub use tls::{Connection, TlsDoor, begin, is_plain_http, plain_http_refusal};

/// Limits of a listening door and of each connection through it.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at once. For more, those make room that ask for nothing, of the address prefix with most of them; while
    /// nobody can, they wait in the kernel's backlog.
    pub connections_max: usize,
    /// Requests in progress at once over all connections, held ones included; the last half is for address prefixes that
    /// have few. Who comes then gets `503`.
    pub requests_max: usize,
    /// Longest time for a TLS handshake, counted from the connection's begin.
    pub handshake_timeout: Duration,
    /// Longest time for the head of a request to arrive, counted from the connection's begin (with TLS from the
    /// handshake's end) or from the end of the request before: it bounds idling on a kept-alive HTTP/1 connection too.
    pub header_timeout: Duration,
    /// Longest time a connection may be kept without a request in it.
    pub idle_timeout: Duration,
    /// Longest time a peer may take nothing of what waits to be written; of one answer of several in an HTTP/2 connection
    /// three times that.
    pub write_timeout: Duration,
    /// Longest pause between two pieces of a request's body. Beyond the first such time a body has to come at 4 KiB a
    /// second.
    pub body_pause: Duration,
    /// Largest body of a request, bytes. A route may set a lower limit of its own.
    pub body_bytes_max: usize,
    /// Whether HTTP/2 is spoken beside HTTP/1.1.
    pub http2: bool,
    /// Longest time requests in progress get to finish after the shutdown began.
    pub drain: Duration,
    /// Networks whose connections come from a proxy. Default: none.
    pub proxies: Proxies,
    /// What happens at the door is counted here.
    pub counts: Arc<DoorCounts>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 8_192,
            requests_max: 16_384,
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(20),
            body_pause: Duration::from_secs(10),
            body_bytes_max: 1024 * 1024,
            http2: true,
            drain: Duration::from_secs(5),
            proxies: Proxies::default(),
            counts: Arc::default(),
        }
    }
}

/// Connections waiting in the kernel to be accepted, at most.
pub const BACKLOG: i32 = 4_096;

/// Binds a listening TCP socket with `SO_REUSEADDR` and a backlog of [`BACKLOG`]; with `SO_REUSEPORT` if
/// `reuse_port`, so that several edges share one port. The socket does not block.
///
/// # Errors
/// Whatever the system says, such as `AddrInUse`.
pub fn bind(address: SocketAddr, reuse_port: bool) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Bytes read ahead of a request, and held back of an answer, for one connection.
const BUFFER_BYTES_MAX: usize = 64 * 1024;
/// Requests at once in one HTTP/2 connection.
const STREAMS_MAX: u32 = 64;
/// Requests of an HTTP/2 connection that the peer took back before they were looked at, at once.
const TAKEN_BACK_MAX: usize = 20;
/// Requests of an HTTP/2 connection that had to be refused or ended for breaking the protocol, ever.
const ENDED_MAX: usize = 128;
/// Bytes of the head of an HTTP/2 request.
const HEAD_BYTES_MAX: u32 = 16 * 1024;
/// Bytes of requests' bodies that an HTTP/2 peer may send ahead of being read, at least and at most.
const AHEAD_BYTES: std::ops::RangeInclusive<usize> = 16 * 1024..=256 * 1024;
/// The least that HTTP/2 lets a connection send ahead (RFC 9113, section 6.9.2).
const AHEAD_BYTES_MIN: u32 = 65_535;
/// How often it is looked whether somebody who waits for a place may have one, at least.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Pause after accepting failed for want of something of ours, such as files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts until `shutdown`, runs `handle` for each connection in a task of its own (Nagle's algorithm off), and
/// then waits for them up to [`Limits::drain`] and a second. The place is to be kept as long as the connection; a connection
/// that has to make room for others is dropped wherever it is. Errors of accepting (no more files, peers gone again) are
/// waited out, never fatal.
pub async fn accept_loop<H, F>(listener: TcpListener, limits: &Limits, shutdown: CancellationToken, handle: H)
where
    H: Fn(TcpStream, Place) -> F + Send + Sync,
    F: Future<Output = ()> + Send + 'static,
{
    let keeper = Doorkeeper::new(limits);
    let connections = TaskTracker::new();
    let begin = |stream: TcpStream, place: Place| {
        // Fails only if the peer is gone already, which shows soon enough.
        let _ = stream.set_nodelay(true);
        let out = place.out();
        let handled = handle(stream, place);
        connections.spawn(async move {
            tokio::select! {
                biased;
                () = out.cancelled() => {}
                () = handled => {}
            }
        });
    };
    let accepting = async {
        // Somebody who was accepted and for whom there is no room yet.
        let mut held: Option<(TcpStream, SocketAddr)> = None;
        loop {
            if let Some((stream, peer)) = held.take() {
                match keeper.admit(peer, limits) {
                    Ok(place) => {
                        begin(stream, place);
                        continue;
                    }
                    Err(room) => {
                        held = Some((stream, peer));
                        // Where not everybody has to wait, who comes next may be from a site that finds room.
                        if room != Room::Refused {
                            let _ = timeout(LOOK_AGAIN, keeper.changed()).await;
                            continue;
                        }
                    }
                }
            }
            let accepted = match held {
                None => listener.accept().await,
                Some(_) => match timeout(LOOK_AGAIN, listener.accept()).await {
                    Ok(accepted) => accepted,
                    Err(_) => continue,
                },
            };
            match accepted {
                Ok((stream, peer)) => match keeper.admit(peer, limits) {
                    Ok(place) => {
                        begin(stream, place);
                        // Whoever made room is to give its file back before there are more of them.
                        yield_now().await;
                    }
                    Err(_) if held.is_none() => held = Some((stream, peer)),
                    // The one before is still waiting. To let this one wait too would keep out all behind it.
                    Err(_) => limits.counts.refuse(),
                },
                Err(error) if is_of_the_peer(&error) => {}
                Err(error) => {
                    limits.counts.failed_accept();
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = accepting => {}
    }
    drop(listener);
    connections.close();
    // Each connection bounds its own end; this bounds those that do not.
    let _ = timeout(limits.drain + Duration::from_secs(1), connections.wait()).await;
}

/// Whether an error of `accept` concerns one connection that is gone before it was accepted.
pub fn is_of_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Serves one connection with `router` until it closes, breaks a limit, or `shutdown`. Who sent a request is in its
/// extensions as [`Peer`].
pub async fn serve_connection<I>(
    io: I,
    place: Place,
    router: axum::Router,
    limits: &Limits,
    shutdown: CancellationToken,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let place = Arc::new(place);
    let activity = Arc::new(Activity::new(Instant::now(), place.clone()));
    let answers = Arc::new(AtomicU32::new(0));
    let unread = Arc::new(AtomicBool::new(false));
    let service = service_fn(|request: Request<Incoming>| {
        let counted = activity.begin();
        let streamed = request.version() == Version::HTTP_2;
        let (answer, share) = match receive(request, &place, limits, &unread) {
            Ok((request, share)) => (Ok(router.clone().oneshot(request)), Some(share)),
            Err(problem) => (Err(problem.into_response()), None),
        };
        let answers = answers.clone();
        async move {
            let answer: Response<Body> = match answer {
                Ok(answer) => answer.await.unwrap_or_else(|never| match never {}),
                Err(refusal) => refusal,
            };
            answers.fetch_add(1, Ordering::Relaxed);
            Ok::<_, Infallible>(answer.map(|body| Counted::new(body, counted, share, streamed)))
        }
    });
    let builder = builder(limits);
    let counts = limits.counts.clone();
    let io = WriteGuard::new(io, limits.write_timeout, unread.clone(), limits.counts.clone());
    let io = TokioIo::new(Frames::new(io, limits.http2, answers.clone(), move || counts.flood()));
    let mut connection = pin!(builder.serve_connection(io, service));
    let mut closing = false;
    // Until its first request a connection has the time of a head; between requests, the idle time.
    let mut deadline = Instant::now() + limits.header_timeout;
    loop {
        tokio::select! {
            // Errors are the peer's: broken requests, broken limits, gone.
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::trace!(%error, "connection");
                    place.had_to_go();
                }
                return;
            }
            () = shutdown.cancelled(), if !closing => {
                closing = true;
                deadline = Instant::now() + limits.drain;
                connection.as_mut().graceful_shutdown();
            }
            () = sleep_until(deadline) => {
                if closing {
                    return;
                }
                match activity.look(limits, Instant::now()) {
                    Look::At(later) => deadline = later,
                    Look::Idle => {
                        place.had_to_go();
                        closing = true;
                        deadline = Instant::now() + limits.drain;
                        connection.as_mut().graceful_shutdown();
                    }
                    Look::Stalled => {
                        limits.counts.stall();
                        return;
                    }
                }
            }
        }
    }
}

/// What a request is before anybody looks at what it wants: who sent it, a body that keeps its limits, and its share of
/// those in progress.
fn receive(
    request: Request<Incoming>,
    place: &Place,
    limits: &Limits,
    unread: &Arc<AtomicBool>,
) -> Result<(Request<Body>, Share), Problem> {
    let (mut head, body) = request.into_parts();
    // Of HTTP/2 a stream is taken back, and the connection stays.
    let unread = (head.version != Version::HTTP_2).then(|| unread.clone());
    let body = Paced::new(body, limits.body_pause, limits.counts.clone(), unread);
    if let Some(problem) = proxy::encoded(&head.headers) {
        limits.counts.encode();
        return Err(problem);
    }
    let peer = match limits.proxies.client(&head.headers, place.introduction()) {
        Ok(None) => place.peer(),
        Ok(Some(client)) => SocketAddr::new(client, 0),
        // The proxy itself asks whether we live.
        Err(proxy::ForwardedError::Missing) if is_probe(head.uri.path()) => place.peer(),
        Err(error) => {
            limits.counts.bad_forwarded();
            return Err(error.into());
        }
    };
    let Some(share) = place.share(peer) else {
        return Err(Problem::unavailable(
            "too many requests are in progress, most of them from the same network",
            2,
        ));
    };
    head.extensions.insert(Peer(peer));
    if let Some(fingerprint) = place.fingerprint() {
        head.extensions.insert(Client(fingerprint));
    }
    Ok((Request::from_parts(head, Body::new(Limited::new(body, limits.body_bytes_max))), share))
}

fn is_probe(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz")
}

/// The limits of the protocols themselves. Of HTTP/2, with h2 0.4.20:
///
/// | Attack | What bounds it |
/// | --- | --- |
/// | rapid reset (CVE-2023-44487) | h2 closes with `ENHANCE_YOUR_CALM` once [`TAKEN_BACK_MAX`] requests wait to be looked at that were taken back; taken back later, each costs two frames |
/// | MadeYouReset (CVE-2025-8671) | h2 closes likewise once it had to end [`ENDED_MAX`] requests itself, those beyond [`STREAMS_MAX`] included |
/// | CONTINUATION (CVE-2024-27316; in h2 RUSTSEC-2024-0332) | h2 closes likewise after five such frames in a head of [`HEAD_BYTES_MAX`] |
/// | HPACK bomb (CVE-2016-6581) | h2 answers 431 to a head that decodes to more than [`HEAD_BYTES_MAX`], and closes likewise at four times that; its table has 4 KiB |
/// | PING, SETTINGS (CVE-2019-9512, CVE-2019-9515) | h2 holds one answer at a time and reads on only once it is written; how many there may be it leaves open, [`frames`] does not |
/// | empty and tiny DATA (CVE-2019-9518; RUSTSEC-2026-0258) | h2 closes after a hundred empty ones, and by a budget for small ones |
/// | PRIORITY, WINDOW_UPDATE, unknown kinds (CVE-2019-9513) | h2 ignores them or takes them in, keeping nothing; [`frames`] bounds how many there may be |
/// | a window of no byte, or of one (CVE-2019-9511, CVE-2019-9517) | h2 takes an answer in pieces, and it is in progress until the last was sent; one of which nothing is taken for three times [`Limits::write_timeout`] ends the connection |
/// | bodies nobody reads | no more than [`AHEAD_BYTES`] are taken in |
///
/// hyper passes both counts on to h2 since 1.5.1 (hyper#3782).
fn builder(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(BUFFER_BYTES_MAX);
    let ahead = limits.body_bytes_max.clamp(*AHEAD_BYTES.start(), *AHEAD_BYTES.end()) as u32;
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_pending_accept_reset_streams(TAKEN_BACK_MAX)
        .max_local_error_reset_streams(ENDED_MAX)
        .initial_stream_window_size(ahead)
        .initial_connection_window_size(ahead.max(AHEAD_BYTES_MIN))
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20))
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEAD_BYTES_MAX)
        .max_send_buf_size(BUFFER_BYTES_MAX);
    if limits.http2 { builder } else { builder.http1_only() }
}

/// [`accept_loop`] with [`serve_connection`], over TLS if there is a `tls`.
pub async fn serve(
    listener: TcpListener,
    router: axum::Router,
    limits: Limits,
    tls: Option<TlsDoor>,
    shutdown: CancellationToken,
) {
    let shared = Arc::new(limits.clone());
    let router = match &tls {
        Some(tls) => tls.dress(router),
        None => router,
    };
    accept_loop(listener, &limits, shutdown.clone(), |stream, mut place| {
        let (router, limits, shutdown) = (router.clone(), shared.clone(), shutdown.clone());
        let tls = tls.clone();
        async move {
            if let Some(stream) = begin(stream, &mut place, tls.as_ref(), &limits, &shutdown).await {
                serve_connection(stream, place, router, &limits, shutdown).await;
            }
        }
    })
    .await;
}

/// The address a request came from, or, through a proxy, whom that names (then with port 0 where it names none); in the
/// request's extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// The fingerprint of the TLS that a request came over, in the request's extensions; not there without TLS, nor where a proxy
/// speaks it in the client's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client(pub Ja4);

/// A connection some of whose first bytes were read already: they are read again, then the rest.
#[derive(Debug)]
pub struct Prefixed<I> {
    prefix: Bytes,
    io: I,
}

impl<I> Prefixed<I> {
    /// `prefix` was read from `io`.
    pub fn new(prefix: Bytes, io: I) -> Self {
        Self { prefix, io }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Prefixed<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.prefix.is_empty() {
            return Pin::new(&mut self.io).poll_read(context, buffer);
        }
        let count = self.prefix.len().min(buffer.remaining());
        buffer.put_slice(&self.prefix.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Prefixed<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
