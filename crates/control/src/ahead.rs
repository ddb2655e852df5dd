//! The beginning of a body, read before its request takes a place among those in progress: who sends slowly holds up nobody.

use axum::body::Body;
use axum::extract::Request;
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use http_body::Body as _;
use http_body_util::BodyExt as _;

use crate::fields::SMALL_BYTES_MAX;

/// Waits for a body's end, or for more than [`SMALL_BYTES_MAX`] bytes of it. Whatever anybody may send without showing who
/// they are is no longer than that.
pub(crate) async fn begun(request: Request) -> Request {
    // What is longer by its own account is refused, or comes from somebody whose token is looked at first.
    if request.body().size_hint().lower() > SMALL_BYTES_MAX as u64 {
        return request;
    }
    let (head, mut body) = request.into_parts();
    // Copied: a piece of a byte would keep the whole buffer that it was read into.
    let mut begun = BytesMut::new();
    let end = loop {
        if begun.len() > SMALL_BYTES_MAX {
            break None;
        }
        match body.frame().await {
            // Trailers mean nothing here.
            Some(Ok(frame)) => begun.extend_from_slice(frame.data_ref().map_or(&[], Bytes::as_ref)),
            Some(Err(error)) => break Some(Err(error)),
            None => break Some(Ok(())),
        }
    };
    let begun = begun.freeze();
    let body = match end {
        Some(Ok(())) => Body::from(begun),
        Some(Err(error)) => Body::from_stream(stream::iter([Ok(begun), Err(error)])),
        None => Body::from_stream(stream::iter([Ok(begun)]).chain(body.into_data_stream())),
    };
    Request::from_parts(head, body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::to_bytes;
    use std::convert::Infallible;

    fn request(pieces: &[&'static [u8]]) -> Request {
        let pieces: Vec<_> =
            pieces.iter().map(|piece| Ok::<_, Infallible>(Bytes::from_static(piece))).collect();
        Request::new(Body::from_stream(stream::iter(pieces)))
    }

    #[tokio::test]
    async fn nothing_is_lost_of_what_was_read_ahead() {
        static LONG: &[u8] = &[7; 5_000];
        let bodies: [&[&'static [u8]]; 5] =
            [&[], &[b"a"], &[b"a", b"bc"], &[LONG, b"d"], &[b"a", LONG, LONG, b"e"]];
        for pieces in bodies {
            let request = begun(request(pieces)).await;
            assert_eq!(to_bytes(request.into_body(), usize::MAX).await.unwrap(), pieces.concat());
        }
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_one_that_breaks_off() {
        let pieces = [Ok(Bytes::from_static(b"a")), Err("gone")];
        let request = begun(Request::new(Body::from_stream(stream::iter(pieces)))).await;
        assert!(to_bytes(request.into_body(), usize::MAX).await.is_err());
    }
}
