//! Who is really there, where a proxy stands in between.
//!
//! A proxy hides every address behind its own, and an address that anybody could claim is worth nothing. So there is a list
//! of networks that proxies connect from; what they say is required, and what others say is refused. They say it in one
//! of two ways:
//!
//! - the PROXY protocol, version 2, binary (HAProxy's `proxy-protocol.txt`, section 2.2): a header before everything else
//!   on a connection, also before TLS. Its extensions are skipped;
//! - `X-Forwarded-For` in each request, as everybody writes it: addresses from the client's to that of the proxy before
//!   the last. They are read from the end, and the first that is no proxy's is the client's; what stands before it is a
//!   client's own invention.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};

use crate::problem::Problem;

/// Most networks of proxies.
pub const NETWORKS_MAX: usize = 64;
/// Most addresses that are looked at in `X-Forwarded-For`.
const HOPS_MAX: usize = 32;
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// What a header of the PROXY protocol begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes of a header up to its length.
const FIXED: usize = 16;
/// Most bytes behind them: addresses and extensions. What is usual, certificates of clients aside, is below 536.
const REST_MAX: usize = 2_048;

/// A network: an address and the number of its bits that matter (`10.0.0.0/8`), or a single address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// Why a text names no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// It is no address, or no number of bits follows.
    #[error("{0:?} is no network such as 10.0.0.0/8, 2001:db8::/32 or 192.0.2.1")]
    NoNetwork(String),
    /// Bits are set that do not matter, so it is not clear what is meant.
    #[error("{0:?} has more bits set than it says that matter")]
    HostBits(String),
}

/// An address as a number, of the 128 bits of IPv6; IPv4 in the first 32.
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)) << 96,
        IpAddr::V6(address) => address.into(),
    }
}

/// The first `bits` of 128.
fn mask(bits: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0)
}

impl Network {
    /// Whether an address is in it. An IPv4 address that is written as an IPv6 one is an IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4()
            && (number(address) ^ number(self.address)) & mask(self.bits) == 0
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let no_network = || NetworkError::NoNetwork(text.chars().take(80).collect());
        let (address, bits) =
            text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| no_network())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(bits) if bits.bytes().all(|byte| byte.is_ascii_digit()) => {
                bits.parse().ok().filter(|bits| *bits <= most).ok_or_else(no_network)?
            }
            Some(_) => return Err(no_network()),
        };
        if number(address) & !mask(bits) != 0 {
            return Err(NetworkError::HostBits(text.to_owned()));
        }
        Ok(Self { address, bits })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl TryFrom<String> for Network {
    type Error = NetworkError;

    fn try_from(text: String) -> Result<Self, NetworkError> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

/// The proxies of a door, if it has any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    networks: Arc<[Network]>,
    protocol: bool,
}

/// How a connection says who is behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Introduction {
    /// Not at all: it comes from whoever it comes from.
    None,
    /// It begins with a header of the PROXY protocol.
    Header,
    /// Each request says so.
    Requests,
}

/// Why a request does not say who sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ForwardedError {
    /// It comes from a proxy, which names nobody.
    #[error("it comes from a proxy, and X-Forwarded-For is missing")]
    Missing,
    /// It comes from a proxy, which names what is no address.
    #[error("X-Forwarded-For holds what is no address")]
    NoAddress,
    /// It comes from elsewhere, and names somebody.
    #[error("X-Forwarded-For is for proxies, and it comes from none that this door knows")]
    NoProxy,
}

impl From<ForwardedError> for Problem {
    fn from(error: ForwardedError) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "forwarded",
            "The request does not say properly where it comes from",
        )
        .detail(error.to_string())
    }
}

impl Proxies {
    /// Proxies that connect from these networks, with the PROXY protocol if `protocol`, with `X-Forwarded-For` otherwise.
    pub fn new(networks: &[Network], protocol: bool) -> Self {
        Self { networks: networks.into(), protocol }
    }

    /// How connections from an address say who is behind them.
    pub fn introduction(&self, peer: IpAddr) -> Introduction {
        match self.contains(peer) {
            false => Introduction::None,
            true if self.protocol => Introduction::Header,
            true => Introduction::Requests,
        }
    }

    fn contains(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(address))
    }

    /// The client of a request; `None` if that is whoever the connection comes from. Where no proxy is configured, or none
    /// with `X-Forwarded-For`, that is not looked at.
    ///
    /// # Errors
    /// [`ForwardedError`]: the request is to be refused.
    pub fn client(
        &self,
        headers: &HeaderMap,
        introduction: Introduction,
    ) -> Result<Option<IpAddr>, ForwardedError> {
        if self.networks.is_empty() || self.protocol {
            return Ok(None);
        }
        let mut values = headers.get_all(FORWARDED_FOR).iter().rev();
        if introduction != Introduction::Requests {
            return if values.next().is_some() { Err(ForwardedError::NoProxy) } else { Ok(None) };
        }
        let mut client = None;
        let hops = values.flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b','));
        for hop in hops.take(HOPS_MAX) {
            let address = hop_address(hop).ok_or(ForwardedError::NoAddress)?;
            client = Some(address);
            if !self.contains(address) {
                break;
            }
        }
        client.map(Some).ok_or(ForwardedError::Missing)
    }
}

/// An address, perhaps with a port behind it, as some proxies write it.
fn hop_address(hop: &[u8]) -> Option<IpAddr> {
    let hop = std::str::from_utf8(hop).ok()?.trim_matches([' ', '\t']);
    let address = hop.parse::<IpAddr>().ok().or_else(|| hop.parse::<SocketAddr>().ok().map(|both| both.ip()));
    let bracketed = || hop.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    address.or_else(bracketed).map(|address| address.to_canonical())
}

/// The answer to a request whose body is compressed (RFC 9110, section 15.5.16), or encoded in a way that is not spoken
/// here; `None` if it is neither. A few bytes must not become many here.
pub(super) fn encoded(headers: &HeaderMap) -> Option<Problem> {
    let is =
        |value: &HeaderValue, name: &str| value.as_bytes().trim_ascii().eq_ignore_ascii_case(name.as_bytes());
    let mut codings = headers.get_all(http::header::CONTENT_ENCODING).iter();
    if codings.any(|coding| !is(coding, "identity")) {
        let problem = Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "encoded",
            "Requests are taken as they are, not compressed",
        );
        return Some(problem.header(http::header::ACCEPT_ENCODING, HeaderValue::from_static("identity")));
    }
    let mut codings = headers.get_all(http::header::TRANSFER_ENCODING).iter();
    let unknown = codings.any(|coding| !is(coding, "chunked"));
    // RFC 9112, section 6.1.
    unknown.then(|| {
        Problem::new(StatusCode::NOT_IMPLEMENTED, "encoded", "Of transfer codings only chunked is spoken")
    })
}

/// What a header of the PROXY protocol says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Introduced {
    /// The connection is this client's.
    Client(SocketAddr),
    /// It is the proxy's own (to see whether we live), or of a kind without addresses.
    Proxy,
}

/// Why a connection of a proxy is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// It does not begin with a header of version 2.
    #[error("the connection does not begin with a header of the PROXY protocol, version 2")]
    NoHeader,
    /// The header is longer than anything it could have to say.
    #[error("the header of the PROXY protocol has {0} bytes")]
    TooLong(usize),
    /// Commands and families of addresses that there are not, or addresses that are cut off.
    #[error("the header of the PROXY protocol is broken")]
    Broken,
}

/// Reads the header that `bytes` begin with: what it says and how long it is, or how many bytes are needed to go on, which
/// are more than there are.
///
/// ```text
///  0            12        13       14       16
///  | signature  | 2 | cmd | family | length | addresses, ports, extensions … |
/// ```
///
/// # Errors
/// [`HeaderError`], as soon as it is clear.
pub fn header(bytes: &[u8]) -> Result<HeaderProgress, HeaderError> {
    let begun = bytes.len().min(SIGNATURE.len());
    if bytes[..begun] != SIGNATURE[..begun] {
        return Err(HeaderError::NoHeader);
    }
    let Some((&[version, family, high, low], rest)) =
        bytes.get(SIGNATURE.len()..).and_then(|rest| rest.split_first_chunk::<4>())
    else {
        return Ok(HeaderProgress::Needs(FIXED));
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    let is_local = match version {
        0x20 => true,
        0x21 => false,
        _ => return Err(HeaderError::NoHeader),
    };
    if length > REST_MAX {
        return Err(HeaderError::TooLong(length));
    }
    let Some(rest) = rest.get(..length) else { return Ok(HeaderProgress::Needs(FIXED + length)) };
    let introduced = match family {
        _ if is_local => Introduced::Proxy,
        0x00 => Introduced::Proxy,
        // Addresses, then ports, of the source first; and TCP, since nothing else comes here.
        0x11 => {
            let ([a, b, c, d, _, _, _, _, high, low, ..], _) =
                rest.split_first_chunk::<12>().ok_or(HeaderError::Broken)?;
            Introduced::Client((Ipv4Addr::new(*a, *b, *c, *d), u16::from_be_bytes([*high, *low])).into())
        }
        0x21 => {
            let (addresses, _) = rest.split_first_chunk::<36>().ok_or(HeaderError::Broken)?;
            let source: [u8; 16] = *addresses.first_chunk().ok_or(HeaderError::Broken)?;
            let port = u16::from_be_bytes([addresses[32], addresses[33]]);
            Introduced::Client(SocketAddr::new(IpAddr::from(source).to_canonical(), port))
        }
        // Sockets of files: the proxy's own machine.
        0x31 => Introduced::Proxy,
        _ => return Err(HeaderError::Broken),
    };
    Ok(HeaderProgress::Whole { introduced, length: FIXED + length })
}

/// How far a header is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderProgress {
    /// So many bytes are needed, from the first one on.
    Needs(usize),
    /// All of it is there.
    Whole {
        /// What it says.
        introduced: Introduced,
        /// Its bytes; what follows is the client's.
        length: usize,
    },
}

/// Reads `data` as a header, and as the values of `X-Forwarded-For`.
#[doc(hidden)]
pub fn fuzz(data: &[u8]) {
    let networks = ["10.0.0.0/8", "2001:db8::/32"].map(|network| network.parse().expect("a network"));
    let proxies = Proxies::new(&networks, false);
    match header(data) {
        Ok(HeaderProgress::Needs(bytes)) => assert!(bytes > data.len() && bytes <= FIXED + REST_MAX),
        Ok(HeaderProgress::Whole { length, .. }) => assert!(length <= data.len()),
        Err(_) => {}
    }
    let mut headers = HeaderMap::new();
    for value in data.split(|byte| *byte == b'\n') {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(FORWARDED_FOR, value);
        }
    }
    let _ = proxies.client(&headers, Introduction::Requests);
    let _ = encoded(&headers);
    let _ = std::str::from_utf8(data).map(str::parse::<Network>);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(texts: &[&str]) -> Vec<Network> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn networks_hold_their_addresses() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("192.0.2.1", "192.0.2.1", "192.0.2.0"),
            ("192.0.2.128/25", "::ffff:192.0.2.129", "::ffff:192.0.2.127"),
            ("0.0.0.0/0", "255.0.0.1", "::1"),
            ("2001:db8::/33", "2001:db8:7fff::1", "2001:db8:8000::"),
            ("::/0", "2001:db8::1", "10.0.0.1"),
        ] {
            let parsed: Network = network.parse().unwrap();
            assert!(parsed.contains(ip(inside)) && !parsed.contains(ip(outside)), "{network}");
            assert_eq!(parsed.to_string().parse(), Ok(parsed));
        }
        for text in ["", "10", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/+8", "::/129", "10.0.0.0/8/8", "a/8"] {
            assert!(matches!(text.parse::<Network>(), Err(NetworkError::NoNetwork(_))), "{text}");
        }
        for text in ["10.0.0.1/8", "2001:db8::1/32"] {
            assert!(matches!(text.parse::<Network>(), Err(NetworkError::HostBits(_))), "{text}");
        }
        assert_eq!(serde_json::to_string(&networks(&["10.0.0.0/8"])).unwrap(), r#"["10.0.0.0/8"]"#);
        assert!(serde_json::from_str::<Network>(r#""10.0.0.1/8""#).is_err());
    }

    fn forwarded(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(FORWARDED_FOR, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn the_first_from_the_end_that_is_no_proxy_is_the_client() {
        let proxies = Proxies::new(&networks(&["10.0.0.0/8", "2001:db8::/32"]), false);
        let introduction = proxies.introduction(ip("10.0.0.1"));
        assert_eq!(introduction, Introduction::Requests);
        let client = |values: &[&str]| proxies.client(&forwarded(values), introduction);
        for (values, expected) in [
            (&["192.0.2.1"][..], "192.0.2.1"),
            (&["192.0.2.1, 10.0.0.2"], "192.0.2.1"),
            (&["1.1.1.1, 192.0.2.1,10.0.0.2 , 2001:db8::1"], "192.0.2.1"),
            // What a client says of itself is not looked at, whatever it is.
            (&["unknown, 192.0.2.1"], "192.0.2.1"),
            (&["1.1.1.1", "192.0.2.1", "10.0.0.2"], "192.0.2.1"),
            (&["192.0.2.1:4711"], "192.0.2.1"),
            (&["[2a00::1]:4711"], "2a00::1"),
            (&["[2a00::1]"], "2a00::1"),
            (&["::ffff:192.0.2.1"], "192.0.2.1"),
            // Within the proxies' own network the first is taken.
            (&["10.9.9.9, 10.0.0.2"], "10.9.9.9"),
        ] {
            assert_eq!(client(values), Ok(Some(ip(expected))), "{values:?}");
        }
        assert_eq!(client(&[]), Err(ForwardedError::Missing));
        for bad in
            ["", "unknown", "192.0.2.1,", "192.0.2.1, _hidden", "192.0.2.256", "[::1", "1.1.1.1 1.1.1.1"]
        {
            assert_eq!(client(&[bad]), Err(ForwardedError::NoAddress), "{bad:?}");
        }
        // However many proxies it names.
        let many = vec!["10.0.0.2"; 1_000].join(",");
        assert_eq!(client(&[&many]), Ok(Some(ip("10.0.0.2"))));
    }

    #[test]
    fn only_proxies_may_say_who_somebody_is() {
        let configured = Proxies::new(&networks(&["10.0.0.0/8"]), false);
        let stranger = configured.introduction(ip("192.0.2.1"));
        assert_eq!(stranger, Introduction::None);
        let named = forwarded(&["198.51.100.1"]);
        assert_eq!(configured.client(&named, stranger), Err(ForwardedError::NoProxy));
        assert_eq!(configured.client(&HeaderMap::new(), stranger), Ok(None));
        // Where no proxy is known, or it speaks otherwise, nobody is believed.
        let protocol = Proxies::new(&networks(&["10.0.0.0/8"]), true);
        assert_eq!(protocol.introduction(ip("::ffff:10.0.0.1")), Introduction::Header);
        for proxies in [Proxies::default(), protocol] {
            assert_eq!(proxies.introduction(ip("192.0.2.1")), Introduction::None);
            assert_eq!(proxies.client(&named, Introduction::None), Ok(None));
        }
    }

    fn whole(version: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = (rest.len() as u16).to_be_bytes();
        [&SIGNATURE[..], &[version, family], &length, rest].concat()
    }

    const FOUR: [u8; 12] = [192, 0, 2, 1, 10, 0, 0, 1, 0x12, 0x67, 0x1f, 0x90];

    #[test]
    fn headers_say_who_is_behind_a_proxy() {
        let client = Introduced::Client("192.0.2.1:4711".parse().unwrap());
        let mut six = [0; 36];
        six[..16].copy_from_slice(&"2a00::1".parse::<Ipv6Addr>().unwrap().octets());
        six[32..34].copy_from_slice(&4711_u16.to_be_bytes());
        let extended = [&FOUR[..], &[4, 0, 1, 9]].concat();
        for (bytes, expected) in [
            (whole(0x21, 0x11, &FOUR), client),
            (whole(0x21, 0x11, &extended), client),
            (whole(0x21, 0x21, &six), Introduced::Client("[2a00::1]:4711".parse().unwrap())),
            (whole(0x20, 0x00, &[]), Introduced::Proxy),
            (whole(0x20, 0x11, &FOUR), Introduced::Proxy),
            (whole(0x21, 0x00, &[]), Introduced::Proxy),
            (whole(0x21, 0x31, &[0; 216]), Introduced::Proxy),
        ] {
            let length = bytes.len();
            let progress = header(&[&bytes[..], b"GET /"].concat());
            assert_eq!(progress, Ok(HeaderProgress::Whole { introduced: expected, length }));
            for cut in 0..length {
                let needs = if cut < FIXED { FIXED } else { length };
                assert_eq!(header(&bytes[..cut]), Ok(HeaderProgress::Needs(needs)), "{cut}");
            }
        }
    }

    #[test]
    fn what_is_no_header_is_refused_as_soon_as_that_is_clear() {
        for bytes in [&b"G"[..], b"GET / HTTP/1.1", b"PROXY TCP4 1.1.1.1", &[22, 3, 1], b"\r\n\r\n\0\r\nQUIZ"]
        {
            assert_eq!(header(bytes), Err(HeaderError::NoHeader), "{bytes:?}");
        }
        // A version and commands that there are not; families that do not come over TCP; addresses that are cut off.
        assert_eq!(header(&whole(0x11, 0x11, &FOUR)), Err(HeaderError::NoHeader));
        assert_eq!(header(&whole(0x22, 0x11, &FOUR)), Err(HeaderError::NoHeader));
        assert_eq!(header(&whole(0x21, 0x12, &FOUR)), Err(HeaderError::Broken));
        assert_eq!(header(&whole(0x21, 0x11, &FOUR[..11])), Err(HeaderError::Broken));
        assert_eq!(header(&whole(0x21, 0x21, &[0; 35])), Err(HeaderError::Broken));
        let long = whole(0x21, 0x11, &[0; REST_MAX + 1]);
        assert_eq!(header(&long[..FIXED]), Err(HeaderError::TooLong(REST_MAX + 1)));
    }

    #[test]
    fn bodies_are_taken_as_they_are() {
        for (name, value, status) in [
            ("content-encoding", "gzip", Some(415)),
            ("content-encoding", "br, gzip", Some(415)),
            ("content-encoding", "", Some(415)),
            ("content-encoding", "Identity", None),
            ("transfer-encoding", "chunked", None),
            ("transfer-encoding", "gzip, chunked", Some(501)),
            ("accept-encoding", "gzip", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static(value));
            assert_eq!(encoded(&headers).map(|problem| problem.status().as_u16()), status, "{name}: {value}");
        }
    }

    #[test]
    fn nothing_is_too_strange() {
        for seed in 0..2_000_u64 {
            // A xorshift generator, so that it is the same each time.
            let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let mut next = || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state as u8
            };
            let length = usize::from(next()) % 64;
            let mut bytes =
                whole(0x20 | next() & 1, next(), &(0..length).map(|_| next()).collect::<Vec<_>>());
            if seed % 3 == 0 {
                let at = usize::from(next()) % bytes.len();
                bytes[at] = next();
            }
            fuzz(&bytes);
            fuzz(&bytes[FIXED..]);
        }
    }
}
