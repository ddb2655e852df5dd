//! Listening sockets and the accept loop, with the limits that `axum::serve` does not set.

mod body;
mod guard;
#[cfg(test)]
mod serve_tests;
mod tls;
#[cfg(test)]
mod tls_tests;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::Request;
use http_body_util::Limited;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use body::{Activity, Counted, Paced};
use guard::WriteGuard;

pub use tls::{Connection, TlsDoor, begin, is_plain_http, plain_http_refusal};

/// Limits of a listening door and of each connection through it.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at once; more wait in the kernel's backlog until one closes.
    pub connections_max: usize,
    /// Longest time for a TLS handshake, counted from the connection's begin.
    pub handshake_timeout: Duration,
    /// Longest time for the head of a request to arrive, counted from the connection's begin (with TLS from the
    /// handshake's end) or from the end of the request before: it bounds idling on a kept-alive HTTP/1 connection too.
    pub header_timeout: Duration,
    /// Longest time a connection may be kept without a request in it.
    pub idle_timeout: Duration,
    /// Longest time a peer may take nothing of what waits to be written.
    pub write_timeout: Duration,
    /// Longest pause between two pieces of a request's body.
    pub body_pause: Duration,
    /// Largest body of a request, bytes. A route may set a lower limit of its own.
    pub body_bytes_max: usize,
    /// Whether HTTP/2 is spoken beside HTTP/1.1.
    pub http2: bool,
    /// Longest time requests in progress get to finish after the shutdown began.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 8_192,
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(20),
            body_pause: Duration::from_secs(10),
            body_bytes_max: 1024 * 1024,
            http2: true,
            drain: Duration::from_secs(5),
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
/// Bytes of the head of an HTTP/2 request.
const HEAD_BYTES_MAX: u32 = 16 * 1024;
/// Pause after accepting failed for want of something of ours, such as files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// One accepted connection's place among [`Limits::connections_max`]; dropping it frees the place.
#[derive(Debug)]
pub struct ConnectionPermit {
    _permit: OwnedSemaphorePermit,
}

/// Accepts until `shutdown`, runs `handle` for each connection in a task of its own (Nagle's algorithm off), and
/// then waits for them up to [`Limits::drain`] and a second. The permit is to be kept as long as the connection. Errors of
/// accepting (no more files, peers gone again) are waited out, never fatal.
pub async fn accept_loop<H, F>(listener: TcpListener, limits: &Limits, shutdown: CancellationToken, handle: H)
where
    H: Fn(TcpStream, SocketAddr, ConnectionPermit) -> F + Send + Sync,
    F: Future<Output = ()> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(limits.connections_max));
    let connections = TaskTracker::new();
    let accepting = async {
        loop {
            let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
            match listener.accept().await {
                Ok((stream, peer)) => {
                    // Fails only if the peer is gone already, which shows soon enough.
                    let _ = stream.set_nodelay(true);
                    connections.spawn(handle(stream, peer, ConnectionPermit { _permit: place }));
                }
                Err(error) if is_of_the_peer(&error) => {}
                Err(error) => {
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

/// Serves one connection with `router` until it closes, breaks a limit, or `shutdown`. The peer's address is in the
/// requests' extensions as [`Peer`].
pub async fn serve_connection<I>(
    io: I,
    peer: SocketAddr,
    router: axum::Router,
    limits: &Limits,
    shutdown: CancellationToken,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let activity = Arc::new(Activity::new(Instant::now()));
    let service = service_fn(|request: Request<Incoming>| {
        let counted = activity.begin();
        let (mut head, body) = request.into_parts();
        head.extensions.insert(Peer(peer));
        let body = Limited::new(Paced::new(body, limits.body_pause), limits.body_bytes_max);
        let answer = router.clone().oneshot(Request::from_parts(head, Body::new(body)));
        async move {
            answer.await.map(|answer| answer.map(|body| Counted::new(body, counted))) as Result<_, Infallible>
        }
    });
    let builder = builder(limits);
    let io = TokioIo::new(WriteGuard::new(io, limits.write_timeout));
    let mut connection = pin!(builder.serve_connection(io, service));
    let mut closing = false;
    // Until its first request a connection has the time of a head; between requests, the idle time.
    let mut deadline = Instant::now() + limits.header_timeout;
    loop {
        tokio::select! {
            // Errors are the peer's: broken requests, broken limits, gone.
            ended = connection.as_mut() => return ended.unwrap_or_else(|error| tracing::trace!(%error, "connection")),
            () = shutdown.cancelled(), if !closing => {
                closing = true;
                deadline = Instant::now() + limits.drain;
                connection.as_mut().graceful_shutdown();
            }
            () = sleep_until(deadline) => {
                if closing {
                    return;
                }
                match activity.idle_deadline(limits, Instant::now()) {
                    Some(later) => deadline = later,
                    None => {
                        closing = true;
                        deadline = Instant::now() + limits.drain;
                        connection.as_mut().graceful_shutdown();
                    }
                }
            }
        }
    }
}

fn builder(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(BUFFER_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
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
    accept_loop(listener, &limits, shutdown.clone(), |stream, peer, place| {
        let (router, limits, shutdown) = (router.clone(), shared.clone(), shutdown.clone());
        let tls = tls.clone();
        async move {
            if let Some(stream) = begin(stream, tls.as_ref(), &limits, &shutdown).await {
                serve_connection(stream, peer, router, &limits, shutdown).await;
            }
            drop(place);
        }
    })
    .await;
}

/// The address a request came from; in its extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

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
