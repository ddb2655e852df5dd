//! TLS before HTTP: the handshake of one connection, with its limits.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use axum::Router;
use axum::middleware::map_response;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use rustls::server::Acceptor;
use rustls::{HandshakeKind, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Duration, timeout};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};
use tokio_util::either::Either;
use tokio_util::io::InspectReader;
use tokio_util::sync::CancellationToken;

use super::{Limits, Place};
use crate::problem::Problem;
use crate::tls::{Door, HELLO_BYTES_MAX, Handshakes, Tls, ja4};

/// A connection, over TLS or not.
pub type Connection = Either<TcpStream, TlsStream<TcpStream>>;

/// Learns from a proxy who is behind it, where it says so first, within [`Limits::header_timeout`]; then makes the handshake
/// where one is to be made ([`TlsDoor::accept`]).
pub async fn begin(
    mut stream: TcpStream,
    place: &mut Place,
    tls: Option<&TlsDoor>,
    limits: &Limits,
    shutdown: &CancellationToken,
) -> Option<Connection> {
    tokio::select! {
        () = shutdown.cancelled() => return None,
        introduced = timeout(limits.header_timeout, place.introduce(&mut stream)) => introduced.ok().flatten()?,
    }
    match tls {
        None => Some(Either::Left(stream)),
        Some(tls) => {
            let Some(stream) = tls.accept(stream, place, limits, shutdown).await else {
                place.had_to_go();
                return None;
            };
            // It has come further: the time until it asks begins anew.
            place.rest();
            Some(Either::Right(stream))
        }
    }
}

/// A door that speaks TLS.
#[derive(Clone)]
pub struct TlsDoor {
    config: Arc<ServerConfig>,
    handshakes: Arc<Handshakes>,
    hsts: Option<HeaderValue>,
}

/// Bytes that are read and thrown away after a refusal, so that it arrives.
const DREGS_MAX: usize = 64 * 1024;
/// For that long.
const DREGS_FOR: Duration = Duration::from_secs(1);

impl TlsDoor {
    /// A door of the kind `door`, with what `tls` holds at each handshake.
    pub fn new(tls: &Tls, door: Door) -> Self {
        Self { config: tls.config(door), handshakes: tls.handshakes(), hsts: tls.hsts().cloned() }
    }

    /// `router`, whose answers tell browsers to use nothing but HTTPS, if they are to be told.
    pub fn dress(&self, router: Router) -> Router {
        let Some(hsts) = self.hsts.clone() else { return router };
        router.layer(map_response(move |mut response: Response| {
            response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, hsts.clone());
            std::future::ready(response)
        }))
    }

    /// Makes the handshake, within [`Limits::handshake_timeout`] and not beyond `shutdown`; `None` if there is none.
    /// Who speaks plain HTTP is told so.
    ///
    /// The client's fingerprint stays with its `place`, for the ledger.
    ///
    /// Nearly all its processor time goes into one step, once all of the `ClientHello` is there. For that step there is a
    /// turn to be waited for: so one prefix that floods the door with handshakes keeps neither the handshakes of others
    /// nor what was begun before from their share.
    pub async fn accept(
        &self,
        mut stream: TcpStream,
        place: &mut Place,
        limits: &Limits,
        shutdown: &CancellationToken,
    ) -> Option<TlsStream<TcpStream>> {
        let shaken = async {
            let mut first = [0; 1];
            if stream.peek(&mut first).await.is_ok_and(|count| count == 1) && is_plain_http(&first) {
                self.handshakes.count_plain();
                refuse_plain(&mut stream).await;
                return None;
            }
            let mut said = Vec::new();
            let overheard = InspectReader::new(stream, |bytes: &[u8]| {
                said.extend_from_slice(&bytes[..bytes.len().min(HELLO_BYTES_MAX - said.len())]);
            });
            let shaken = match LazyConfigAcceptor::new(Acceptor::default(), overheard).await {
                Ok(hello) => {
                    let turn = place.handshake().await?;
                    let hello = StartHandshake::from_parts(hello.accepted, hello.io.into_inner());
                    place.fingerprint = ja4(&said);
                    let mut accept = pin!(hello.into_stream(self.config.clone()));
                    // What is left after the first look is to wait for the peer, which takes no turn.
                    let first = poll_fn(|context| Poll::Ready(accept.as_mut().poll(context))).await;
                    drop(turn);
                    match first {
                        Poll::Ready(shaken) => shaken,
                        Poll::Pending => accept.await,
                    }
                }
                Err(error) => Err(error),
            };
            shaken
                .inspect_err(|error| {
                    self.handshakes.count_failed();
                    tracing::trace!(%error, "handshake");
                })
                .ok()
        };
        let shaken = tokio::select! {
            () = shutdown.cancelled() => return None,
            shaken = timeout(limits.handshake_timeout, shaken) => shaken,
        };
        let Ok(stream) = shaken else {
            self.handshakes.count_timed_out();
            return None;
        };
        if let Some(stream) = &stream {
            let kind = stream.get_ref().1.handshake_kind();
            self.handshakes.count_done(kind == Some(HandshakeKind::Resumed));
        }
        stream
    }
}

/// Whether a connection that begins so speaks HTTP without TLS: a method begins with a letter, a TLS record with the
/// byte 22.
pub fn is_plain_http(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(u8::is_ascii_alphabetic)
}

/// The answer for who speaks HTTP to a door that speaks TLS, whole, after which the connection closes.
pub fn plain_http_refusal() -> Vec<u8> {
    Problem::new(StatusCode::BAD_REQUEST, "tls-required", "This door speaks HTTPS")
        .detail("The address is the same, with https:// before it.")
        .to_http1()
}

async fn refuse_plain(stream: &mut TcpStream) {
    if stream.write_all(&plain_http_refusal()).await.is_err() || stream.shutdown().await.is_err() {
        return;
    }
    // Closing with something unread would take the answer back.
    let dregs = async {
        let mut buffer = [0; 1024];
        let mut left = DREGS_MAX;
        while left > 0 {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(count) => left = left.saturating_sub(count),
            }
        }
    };
    let _ = timeout(DREGS_FOR, dregs).await;
}
