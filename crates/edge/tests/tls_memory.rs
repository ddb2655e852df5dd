//! What a TLS listener costs in memory once its handshake is over, counted at the allocator.
#![allow(unsafe_code)] // An allocator: it does nothing but count and pass on.
#![allow(clippy::print_stdout)] // It also says what it counted.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use minassa_edge::seal::{Handshake, Progress, Session, TlsError};

use harness::{Identity, Pair, client, written};

#[allow(dead_code, missing_docs, unreachable_pub)]
#[path = "../src/seal/tests/harness.rs"]
mod harness;

thread_local! {
    /// Bytes that this thread holds, and what it asked for since the beginning.
    static HELD: Cell<isize> = const { Cell::new(0) };
    static ASKED: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: everything is passed on as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.set(HELD.get() + layout.size() as isize);
        ASKED.set(ASKED.get() + 1);
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        HELD.set(HELD.get() - layout.size() as isize);
        // SAFETY: as above.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// What the allocator of the C library adds to each piece, at most (a header, and rounding up to 16 bytes).
const MALLOC: usize = 24;

#[test]
fn a_session_stays_below_a_kibibyte() {
    let identity = Identity::make();
    let server = Arc::new(identity.server());
    let config = Arc::new(identity.client());
    // What is made once, at the first connection.
    drop(Pair::new(&server, client(config.clone())));

    const SESSIONS: usize = 100;
    let mut sessions = Vec::with_capacity(SESSIONS);
    let before = HELD.get();
    for _ in 0..SESSIONS {
        sessions.push(Pair::new(&server, client(config.clone())).session);
    }
    let held = usize::try_from(HELD.get() - before).unwrap().div_ceil(SESSIONS);
    // As much as it takes if it is in a box of its own.
    assert!(size_of::<Session>() + held + 2 * MALLOC <= 1_024, "{held}");

    // Nor does sealing a flush ask for any.
    let mut out = Vec::with_capacity(8_192);
    let asked = ASKED.get();
    sessions[0].seal_gathered(&[&[1; 3_000], &[2; 3_000]], &mut out).unwrap();
    assert_eq!(ASKED.get(), asked);
    sessions.clear();
    drop(out);
    assert_eq!(HELD.get(), before, "all is given back");
    // Only now: what is printed may be kept.
    println!("a session: {} bytes and {held} on the heap", size_of::<Session>());
}

#[test]
fn a_handshake_on_its_way_is_bounded() {
    let identity = Identity::make();
    let server = Arc::new(identity.server());
    drop(Pair::new(&server, client(identity.client())));
    let mut client = client(identity.client());
    let mut hello = written(&mut client);
    let mut outgoing = Vec::with_capacity(16_384);
    let before = HELD.get() - hello.capacity() as isize;
    let mut handshake = Handshake::new(server).unwrap();
    assert_eq!(handshake.advance(&mut hello, &mut outgoing).unwrap(), Progress::NeedsMore);
    drop(hello);
    let held = HELD.get() - before;
    println!("a handshake that waits for the client's answer: {held} bytes");
    assert!(held < 8_192, "{held}");
}
