//! Whether the other end still reads.
#![allow(unsafe_code)] // `getsockopt`: no crate that needs no C compiler of its own reads the end of `struct tcp_info`.

use std::os::fd::AsRawFd;

/// Where `tcpi_snd_wnd` lies in `struct tcp_info` (`linux/tcp.h`), which only grows at its end.
const AT: usize = 228;
const END: usize = AT + 4;

/// The receive window that the peer announced last, bytes; nothing where the kernel does not say (before Linux 5.4).
pub(crate) fn announced(stream: &impl AsRawFd) -> Option<u32> {
    let mut info = [0_u8; END];
    let mut length = END as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `info`, which has as many, and how many to `length`.
    let answer = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    (answer == 0 && length as usize == END)
        .then(|| u32::from_ne_bytes([info[AT], info[AT + 1], info[AT + 2], info[AT + 3]]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_window_is_open_until_nobody_reads() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (_theirs, _) = listener.accept().unwrap();
        ours.set_nonblocking(true).unwrap();
        assert!(announced(&ours).unwrap() > 1_000);
        while ours.write(&[0; 4_096]).is_ok() {}
        // Bytes that are still on their way take the rest of it.
        while announced(&ours).unwrap() > 500 {
            let _ = ours.write(&[0; 4_096]);
            std::thread::yield_now();
        }
        assert_eq!(announced(&std::fs::File::open("/dev/null").unwrap()), None);
    }
}
