//! What a TLS listener costs beside the socket: sealing a flush, hot and with as many listeners as an edge has; with
//! the key expanded for each record, as `edge::seal` does, and with the expanded key kept, which is 600 bytes more a
//! listener.
//!
//! `cargo bench -p minassa-edge --bench seal`

#![allow(clippy::print_stdout)] // A benchmark prints what it finds.

use std::sync::Arc;

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use minassa_edge::seal::{HEADER_BYTES, Handshake, Progress, Session, TlsError};

use harness::{Identity, Pair, client};

/// Listeners of an edge: together their keys are larger than a core's cache.
const LISTENERS: usize = 10_000;
/// A flush of one part and of two of `opus-48`.
const FLUSHES: [usize; 2] = [3_000, 6_000];

#[allow(dead_code, missing_docs, unreachable_pub)]
#[path = "../src/seal/tests/harness.rs"]
mod harness;

fn seal(criterion: &mut Criterion) {
    let identity = Identity::make();
    let mut server = identity.server();
    server.ignore_client_order = true;
    let (server, config) = (Arc::new(server), Arc::new(identity.client()));
    let shake = || Pair::new(&server, client(config.clone())).session;
    println!("a session: {} bytes, and 224 on the heap", size_of::<Session>());
    criterion.bench_function("handshake, both sides", |bencher| bencher.iter(shake));

    let mut sessions: Vec<Session> = (0..LISTENERS).map(|_| shake()).collect();
    let kept: Vec<LessSafeKey> = (0..LISTENERS)
        .map(|at| {
            LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &(at as u128).to_be_bytes()).expect("a key"))
        })
        .collect();
    let flush = vec![7; FLUSHES[1]];
    let mut out = Vec::with_capacity(FLUSHES[1] + 100);
    for (name, listeners) in [("one listener", 1), ("10,000 listeners", LISTENERS)] {
        let mut group = criterion.benchmark_group(name);
        for bytes in FLUSHES {
            group.throughput(Throughput::Bytes(bytes as u64));
            let mut at = 0;
            group.bench_function(format!("session, {bytes} bytes"), |bencher| {
                bencher.iter(|| {
                    out.clear();
                    at = (at + 1) % listeners;
                    sessions[at].seal(&flush[..bytes], &mut out).expect("a record");
                });
            });
            let mut spare = Vec::with_capacity(FLUSHES[1] + 100);
            group.bench_function(format!("session, in place, {bytes} bytes"), |bencher| {
                bencher.iter(|| {
                    out.clear();
                    at = (at + 1) % listeners;
                    out.extend_from_slice(&[0; HEADER_BYTES]);
                    out.extend_from_slice(&flush[..bytes]);
                    sessions[at].seal_in_place(&mut out, &mut spare).expect("a record");
                });
            });
            group.bench_function(format!("kept key, {bytes} bytes"), |bencher| {
                bencher.iter(|| {
                    out.clear();
                    at = (at + 1) % listeners;
                    out.extend_from_slice(&[23, 3, 3, 0, 0]);
                    out.extend_from_slice(&flush[..bytes]);
                    out.push(23);
                    let nonce = Nonce::assume_unique_for_key([1; 12]);
                    let tag = kept[at].seal_in_place_separate_tag(nonce, Aad::from([0; 5]), &mut out[5..]);
                    out.extend_from_slice(tag.expect("sealed").as_ref());
                });
            });
        }
    }
}

criterion_group!(benches, seal);
criterion_main!(benches);
