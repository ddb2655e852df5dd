#!/usr/bin/env python3
"""Checks a published ledger and recomputes its verdicts, with nothing but Python's standard library.

    verdict_check.py [--key HEX] [--witness HEX]... LEDGER...

`--key` is the event's Ed25519 public key, from a source you trust (/.well-known/minassa-keys.json, a poster).
Without it the key named in the ledger itself is used, which proves only that the file agrees with itself.
`--witness` is a ledger head from the signature of a segment of audio: it must be a line of the ledger.

A ledger that holds gives a line `holds …`, then one verdict a bin as JSON. A damaged one gives `fault …`; the
exit status is then 1.

This is the second implementation. It was written from the documentation of the modules `ledger` and `verdict`
of the crate minassa-admission, and stays independent: change it by reading that page, not the other code.
"""

import argparse
import hashlib
import json
import math
import re
import sys

# --- Ed25519, RFC 8032 section 5.1 -------------------------------------------------------------------------------

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
ROOT = pow(2, (P - 1) // 4, P)
NEUTRAL = (0, 1, 1, 0)


def point_add(a, b):
    """Section 5.1.4, extended homogeneous coordinates (X, Y, Z, T)."""
    e = (a[1] - a[0]) * (b[1] - b[0]) % P
    f = (a[1] + a[0]) * (b[1] + b[0]) % P
    g = 2 * a[3] * b[3] * D % P
    h = 2 * a[2] * b[2] % P
    i, j, k, m = f - e, h - g, h + g, f + e
    return (i * j % P, k * m % P, j * k % P, i * m % P)


def point_double(a):
    x, y, z, _ = a
    xx, yy, zz = x * x % P, y * y % P, 2 * z * z % P
    h = xx + yy
    e = h - (x + y) * (x + y) % P
    g = xx - yy
    f = zz + g
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def point_equal(a, b):
    return (a[0] * b[2] - b[0] * a[2]) % P == 0 and (a[1] * b[2] - b[1] * a[2]) % P == 0


def point_read(data):
    """Section 5.1.3; None if it is no point."""
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & (2**255 - 1)
    if y >= P:
        return None
    xx = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(xx, (P + 3) // 8, P)
    if (x * x - xx) % P != 0:
        x = x * ROOT % P
    if (x * x - xx) % P != 0 or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = P - x
    return (x, y, 1, x * y % P)


BASE = point_read((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


def is_small(point):
    for _ in range(3):
        point = point_double(point)
    return point_equal(point, NEUTRAL)


class PublicKey:
    def __init__(self, data):
        self.data = data
        self.point = point_read(data)
        if self.point is None or is_small(self.point):
            raise ValueError("no Ed25519 public key")
        x, y, z, t = self.point
        self.minus = (P - x, y, z, P - t)
        self.base_minus = point_add(BASE, self.minus)

    def verify(self, message, signature):
        """Section 5.1.7, without cofactor; small points are refused."""
        r = point_read(signature[:32])
        s = int.from_bytes(signature[32:], "little")
        if r is None or is_small(r) or s >= L:
            return False
        k = int.from_bytes(hashlib.sha512(signature[:32] + self.data + message).digest(), "little") % L
        # [s]B + [k](-A), both at once.
        sum_ = NEUTRAL
        for bit in range(max(s.bit_length(), k.bit_length()) - 1, -1, -1):
            sum_ = point_double(sum_)
            both = (s >> bit & 1, k >> bit & 1)
            if both == (1, 1):
                sum_ = point_add(sum_, self.base_minus)
            elif both[0]:
                sum_ = point_add(sum_, BASE)
            elif both[1]:
                sum_ = point_add(sum_, self.minus)
        return point_equal(sum_, r)


# --- The ledger --------------------------------------------------------------------------------------------------

K = 20
BIN_MS = 10_000
LINE_MAX = 32 * 1024
U64 = 2**64
TAIL = re.compile(r',"hash":"([0-9a-f]{64})","sig":"([0-9a-f]{128})"}\Z')
SLUG = re.compile(r"[a-z0-9-]{1,64}\Z")
COMMITMENT = re.compile(r"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]\Z")
JA4 = re.compile(r"[0-9A-Za-z]{10}_[0-9a-f]{12}_[0-9a-f]{12}\Z")

COUNTS = {
    "door": "connections handshakes_started handshakes_finished handshakes_shed half_open pending silent timed_out "
    "abuse requests client_errors server_errors",
    "refused": "full prefix forged expired excess",
    "tickets": "asked given used",
    "admission": "arrivals waiting called taken challenged passed ignored",
    "audio": "playlists files parts opened followed sessions starved shut shut_unknown bytes_due bytes_acked listeners",
    "own": "cpu_bp loop_late_us disk_write_us level capacity datagrams datagrams_refused",
}
KERNEL = "cookies_sent cookies_returned listen_overflows listen_drops"
MEASURES = (
    "ladder_up ladder_down level_pinned listeners_capped challenge_on challenge_off prefix_weighed connections_capped "
    "handshakes_shed slow_closed abuse_closed sessions_closed tickets_revoked bitrate_lowered tier_slowed "
    "delayed_feed sent_to_cdn"
).split()
CAUSES = "processor loop line files memory silence operator evidence limit relief".split()
MARKS = (
    "deploy restart configuration clock_step disk_slow disk_switched edge_lost edge_back live hold ended"
).split()


class Damaged(Exception):
    pass


def need(holds, what):
    if not holds:
        raise Damaged(what)


def number(value):
    need(type(value) is int and 0 <= value < U64, "a value that is no number without sign")
    return value


def fields(value, names):
    """An object with exactly these fields in this order."""
    need(type(value) is dict and list(value) == names.split(), "other fields than " + names)
    return value


def numbers(value, names):
    for field in fields(value, names).values():
        number(field)
    return value


def check_fingerprints(value):
    if value is None:
        return
    fields(value, "mix rest")
    rest, mix = number(value["rest"]), value["mix"]
    need(type(mix) is list and len(mix) <= 32, "too many fingerprints")
    order = []
    for entry in mix:
        need(type(entry) is list and len(entry) == 2, "no fingerprint")
        name, count = entry
        need(type(name) is str and JA4.match(name), "no JA4")
        need(number(count) >= K, "a group of fewer than 20")
        order.append((-count, name))
    need(all(a < b for a, b in zip(order, order[1:])), "fingerprints out of order")
    need(rest == 0 or rest >= K, "a rest of fewer than 20")
    total = rest + sum(count for _, count in mix)
    need(0 < total < U64, "fingerprints of nobody, or of too many")


def check_prefixes(value):
    if value is None:
        return
    fields(value, "top rest familiar")
    rest = numbers(value["rest"], "prefixes arrivals")
    top = value["top"]
    need(type(top) is list and len(top) <= 16, "too many prefixes")
    need(all(number(size) >= K for size in top), "a group of fewer than 20")
    need(top == sorted(top, reverse=True), "prefixes out of order")
    total = sum(top) + rest["arrivals"]
    need(K <= total < U64, "a histogram of fewer than 20")
    need(rest["arrivals"] == 0 or rest["arrivals"] >= K, "a rest of fewer than 20")
    need(rest["prefixes"] <= rest["arrivals"], "a prefix without arrivals")
    need((rest["prefixes"] == 0) == (rest["arrivals"] == 0), "arrivals without a prefix")
    familiar = value["familiar"]
    if familiar is not None:
        need(number(familiar) <= total, "more familiar than there are")
        need(all(side == 0 or side >= K for side in (familiar, total - familiar)), "fewer than 20 familiar or new")


def check_bin(value):
    fields(value, "start_ms processes counts kernel prefixes fingerprints mitigations marks")
    start = number(value["start_ms"])
    need(start % BIN_MS == 0 and start < 2**53, "no bin begins then")
    processes = numbers(value["processes"], "expected reported")
    need(processes["reported"] <= processes["expected"], "more processes than there were")
    for group, names in COUNTS.items():
        numbers(fields(value["counts"], " ".join(COUNTS))[group], names)
    if value["kernel"] is not None:
        numbers(value["kernel"], KERNEL)
    check_prefixes(value["prefixes"])
    check_fingerprints(value["fingerprints"])
    need(type(value["mitigations"]) is list and type(value["marks"]) is list, "no list")
    done = []
    for mitigation in value["mitigations"]:
        fields(mitigation, "measure cause count")
        need(mitigation["measure"] in MEASURES and mitigation["cause"] in CAUSES, "an unknown mitigation")
        need(number(mitigation["count"]) > 0, "a mitigation that did nothing")
        done.append((MEASURES.index(mitigation["measure"]), CAUSES.index(mitigation["cause"])))
    need(all(a < b for a, b in zip(done, done[1:])), "mitigations out of order")
    happened = []
    for mark in value["marks"]:
        fields(mark, "at_ms mark")
        need(number(mark["at_ms"]) < BIN_MS and mark["mark"] in MARKS, "an unknown mark")
        happened.append((mark["at_ms"], MARKS.index(mark["mark"])))
    need(len(happened) <= 64 and happened == sorted(happened), "marks out of order, or too many")


def check_open(value):
    fields(value, "event key doors_ms announced_ms thresholds reference draw")
    need(type(value["event"]) is str and SLUG.match(value["event"]), "no name of an event")
    need(type(value["key"]) is str, "no text")
    for name in ("doors_ms", "announced_ms", "thresholds"):
        number(value[name])
    check_fingerprints(value["reference"])
    # 32 bytes in base64url without padding.
    need(value["draw"] is None or type(value["draw"]) is str and COMMITMENT.match(value["draw"]), "no commitment")


class Ledger:
    """Reads line after line."""

    def __init__(self, key, skip_signatures):
        self.key, self.skip = key, skip_signatures
        self.lines, self.head, self.closed = 0, "0" * 64, False
        self.opening, self.bins, self.heads = None, [], set()

    def line(self, raw):
        need(len(raw) <= LINE_MAX and raw.isascii(), "this is no line of a ledger")
        text = raw.decode("ascii")
        tail = TAIL.search(text)
        need(tail and text.startswith('{"v":1,"seq":'), "this is no line of a ledger")
        statement = text[: tail.start()]
        digest = hashlib.sha256(b"minassa.ledger.v1.line\0" + statement.encode()).digest()
        need(digest.hex() == tail[1], "the content of the line does not fit its hash")
        try:
            entry = json.loads(statement + "}")
        except (ValueError, RecursionError) as error:
            raise Damaged("the line says what no ledger says") from error
        if self.key is None:
            need(type(entry.get("open")) is dict, "no key is given, and none opens the ledger")
            try:
                self.key = PublicKey(bytes.fromhex(entry["open"].get("key")))
            except (TypeError, ValueError) as error:
                raise Damaged("no key is given, and none opens the ledger") from error
        message = b"minassa.ledger.v1.sign\0" + digest
        need(self.skip or self.key.verify(message, bytes.fromhex(tail[2])), "the signature does not fit")

        kind = next((kind for kind in ("open", "bin", "close") if kind in entry), None)
        need(kind, "a line of no kind")
        fields(entry, "v seq prev gap bin" if kind == "bin" else "v seq prev " + kind)
        canonical = json.dumps(entry, separators=(",", ":"))[:-1]
        need(number(entry["seq"]) == self.lines, f"line number {entry['seq']} stands where {self.lines} belongs")
        need(entry["prev"] == self.head, "the line follows another line than the one before it")
        need(not self.closed, "the ledger was closed before this line")
        need((self.lines == 0) == (kind == "open"), "a ledger begins with its opening, and has one")
        value = entry[kind]
        if kind == "open":
            check_open(value)
            need(value["key"] == self.key.data.hex(), "the ledger was opened for another key")
            self.opening = value
        elif kind == "bin":
            check_bin(value)
            gap = 0
            if self.bins:
                later = value["start_ms"] - self.bins[-1]["start_ms"]
                need(later > 0, "the bin is not later than the one before")
                gap = later // BIN_MS - 1
            need(number(entry["gap"]) == gap, "bins are missing that are not admitted")
            self.bins.append(value)
        else:
            numbers(value, "closed_ms")
            self.closed = True
        need(canonical == statement, "the line is not in canonical form")
        self.lines += 1
        self.head = hashlib.sha256(raw).hexdigest()
        self.heads.add(self.head)


def read_ledger(data, key, witnesses=(), skip_signatures=False):
    """The ledger, or (line, byte, what) of its first fault."""
    ledger = Ledger(key, skip_signatures)
    at = 0
    while at < len(data):
        end = data.find(b"\n", at)
        if end < 0:
            return None, (ledger.lines + 1, at, "the line does not end")
        try:
            ledger.line(data[at:end])
        except Damaged as damage:
            return None, (ledger.lines + 1, at, str(damage))
        at = end + 1
    if ledger.opening is None:
        return None, (1, 0, "the ledger is empty")
    for witness in witnesses:
        if witness not in ledger.heads and witness != "0" * 64:
            return None, (ledger.lines + 1, at, f"witnesses saw a line with SHA-256 {witness}, which is not here")
    return ledger, None


# --- The verdict -------------------------------------------------------------------------------------------------

# Feature: sign, threshold, floor, what it needs. The order is that of the published table.
TABLE = {
    "unanswered_cookies": ("l34", 30_000, 2_000, None),
    "unfinished_handshakes": ("l34", 5_000, 1_000, None),
    "half_open": ("l34", 5_000, 1_000, ("on time",)),
    "refused_datagrams": ("l34", 10_000, 20_000, None),
    "unused_tickets": ("l7", 5_000, 200, ("risen", "asked", 15)),
    "lost_sessions": ("l7", 5_000, 200, ("risen", "opened", 15)),
    "bare_playlists": ("l7", 40_000, 2_000, ("risen", "playlists", 30)),
    "shut_readers": ("l7", 5_000, 200, ("risen", "arrivals", 15)),
    "unfinished_requests": ("l7", 4_000, 500, ("on time",)),
    "slow_requests": ("l7", 4_000, 400, None),
    "protocol_abuse": ("l7", 100, 200, None),
    "forged_tickets": ("l7", 500, 500, None),
    "bad_requests": ("l7", 5_000, 2_000, ("risen", "requests", 30)),
    "ignored_challenges": ("l7", 5_000, 400, None),
    "lost_capacity": ("own", 2_000, 1, None),
    "lost_processes": ("own", 1, 1, None),
    "slow_disk": ("own", 250_000, 1, None),
    "server_errors": ("own", 200, 50, ("flat",)),
    "busy_processor": ("own", 3_000, 8_000, ("flat",)),
    "late_loop": ("own", 100_000, 1, ("flat",)),
    "foreign_fingerprints": ("doubt", 2_500, 200, ("arrivals",)),
    "concentrated_prefixes": ("doubt", 6_000, 400, ("arrivals",)),
    "unfamiliar_prefixes": ("doubt", 4_000, 400, ("arrivals",)),
    "sudden_arrivals": ("doubt", 50_000, 500, ("arrivals",)),
    "untaken_turns": ("doubt", 9_000, 200, ("arrivals",)),
    "surge": ("people", 25_000, 200, None),
    "follow_through": ("people", 5_000, 20, None),
    "acknowledged": ("people", 5_000, 20, None),
}
AMBIGUOUS = (
    "half_open unused_tickets lost_sessions bare_playlists shut_readers unfinished_requests"
).split()
CORROBORATE = ("ignored_challenges", "forged_tickets", "protocol_abuse")
SOFT_FAULTS = ("server_errors", "busy_processor", "late_loop")
OUR_MARKS = ("deploy", "restart", "configuration", "disk_slow", "disk_switched", "edge_lost")
GROUP_OF = {name: group for group, names in COUNTS.items() for name in names.split()}


def share(part, whole):
    if whole == 0:
        return 0 if part == 0 else 1_000_000
    return min(10_000 * part // whole, 1_000_000)


def less(a, b):
    return max(a - b, 0)


def count(bin_, name):
    return bin_["counts"][GROUP_OF[name]][name]


def by_chance(counted):
    return 4 * math.isqrt(counted)


def lower_median(values):
    return sorted(values)[(len(values) - 1) // 2] if len(values) >= 3 else None


def mix_of(histograms):
    named, rest = {}, 0
    for histogram in histograms:
        if histogram is not None:
            rest += histogram["rest"]
            for name, arrivals in histogram["mix"]:
                named[name] = named.get(name, 0) + arrivals
    return named, rest, rest + sum(named.values())


def divergence(now, then):
    (t, _, t_all), (u, u_rest, u_all) = now, then
    if t_all < 200 or u_all < 200:
        return None
    excess = sum(less(arrivals * u_all, u.get(name, 0) * t_all) for name, arrivals in t.items())
    return less(share(excess, t_all * u_all), share(u_rest, u_all))


def all_in(prefixes):
    return sum(prefixes["top"]) + prefixes["rest"]["arrivals"]


def familiar_share(bin_):
    prefixes = bin_["prefixes"]
    if prefixes is None or prefixes["familiar"] is None:
        return None
    return share(prefixes["familiar"], all_in(prefixes))


class Judge:
    def __init__(self, opening):
        self.opening = opening
        self.seen = []  # Bins of this window's unbroken line, the last first, at most three.
        self.usual = []  # The baseline, at most 30.
        self.capacities = []
        self.lateness = []
        self.calm = 0
        self.wary = None  # The listeners noted, while it is wary.
        self.unproven = 0
        self.since_unsettled = 0
        self.line = (None, None)

    # What the window holds.

    def s(self, name, start, end):
        return sum(count(bin_, name) for bin_ in self.seen[start:end])

    def s2(self, name):
        return self.s(name, 0, 2)

    def s3(self, name):
        return self.s(name, 0, 3)

    def before(self, name):
        return self.s(name, 1, 3)

    def b0(self, name):
        return count(self.seen[0], name)

    @property
    def n(self):
        return min(len(self.seen), 2)

    def kernel2(self, name):
        kernels = [bin_["kernel"] for bin_ in self.seen[:2]]
        return None if None in kernels else sum(kernel[name] for kernel in kernels)

    # What is usual.

    def base(self, name):
        return lower_median([count(bin_, name) for bin_ in self.usual])

    def risen(self, name, tenths):
        base = self.base(name)
        return base is None or 10 * self.s2(name) >= tenths * self.n * base

    def arrivals_risen(self):
        return self.risen("arrivals", 20) and self.s2("arrivals") >= 200

    def flat(self):
        if len(self.usual) < 3:
            return False
        return (
            2 * self.s2("arrivals") <= 3 * self.n * self.base("arrivals") + 200
            and self.s2("connections") <= 3 * self.n * self.base("connections") + 200
            and self.s2("requests") <= 4 * self.n * self.base("requests") + 500
        )

    def arrivals_rising(self):
        base = self.base("arrivals")
        if base is None:
            return self.b0("arrivals") >= 2 * count(self.seen[-1], "arrivals") + 100
        return 10 * self.b0("arrivals") >= 12 * base + 200

    def surplus(self, name, start, end, bins):
        """Of the bins from `start` to before `end`, beyond what is usual of so many bins."""
        return less(self.s(name, start, end), bins * (self.base(name) or 0))

    def short(self):
        level = max(count(bin_, "level") for bin_ in self.seen[:2])
        return level >= 3 and share(self.b0("sessions"), self.b0("capacity")) < 8_000

    def impaired(self):
        return self.slow() or share(self.s2("server_errors"), self.s2("requests")) >= 500

    def slow(self):
        return bool(
            max(self.lateness) >= 100_000
            or share(self.kernel2("listen_overflows") or 0, self.s2("connections")) >= 500
            or share(self.s2("handshakes_shed"), self.s2("handshakes_started")) >= 2_000
        )

    # Features: (value, count), or None where there is none.

    def part(self, counted, whole):
        return share(counted, whole), counted

    def held(self, name):
        if len(self.seen) < 2:
            return None
        shares = [share(count(bin_, name), count(bin_, "connections")) for bin_ in self.seen[:2]]
        return min(shares), self.b0(name)

    def unanswered_cookies(self):
        sent, returned = self.kernel2("cookies_sent"), self.kernel2("cookies_returned")
        return None if sent is None else self.part(less(sent, returned), self.s2("connections"))

    def unfinished_handshakes(self):
        started = self.s2("handshakes_started")
        done = self.s2("handshakes_finished") + self.s2("handshakes_shed")
        return self.part(less(started, done), started)

    def half_open(self):
        return self.held("half_open")

    def refused_datagrams(self):
        return self.part(self.s2("datagrams_refused"), self.s2("datagrams"))

    def unused_tickets(self):
        if len(self.seen) < 2:
            return None
        earlier = len(self.seen) - 1
        given = self.surplus("given", 1, 3, earlier)
        unused = less(given, self.surplus("used", 0, 3, earlier))
        unused = less(unused, by_chance(self.before("given")))
        errors = share(self.s3("server_errors"), self.s3("requests"))
        return less(share(unused, given), errors), unused

    def lost_sessions(self):
        if len(self.seen) < 2:
            return None
        earlier = len(self.seen) - 1
        opened = self.surplus("opened", 1, 3, earlier)
        began = max(opened, self.surplus("used", 1, 3, earlier))
        lost = less(opened, self.surplus("followed", 0, 3, earlier))
        return self.part(less(lost, by_chance(self.before("opened"))), began)

    def bare_playlists(self):
        playlists, files = self.s2("playlists"), self.s2("files")
        begun = self.s2("opened") + self.s2("server_errors")
        return share(playlists, files + begun), less(playlists, files)

    def shut_readers(self):
        if len(self.seen) < 2:
            return None
        first = self.seen[-1]
        unknown = self.b0("shut_unknown") > 0 or count(first, "shut_unknown") > 0
        name = "starved" if unknown else "shut"
        now, then = self.b0(name), count(first, name)
        more = less(less(now, then), by_chance(now + then))
        came = self.surplus("used", 1, 3, len(self.seen) - 1)
        if not unknown:
            plain = [self.surplus(name, 1, 3, len(self.seen) - 1) for name in ("arrivals", "asked")]
            came += less(*plain)
        if more > came + came // 4 or (unknown and self.short()):
            return None
        if unknown:
            more = min(more, less(came, self.surplus("followed", 0, 3, len(self.seen))))
        return self.part(more, came)

    def unfinished_requests(self):
        return self.held("pending")

    def slow_requests(self):
        return self.part(self.s2("timed_out"), self.s2("connections"))

    def protocol_abuse(self):
        return self.part(self.s2("abuse"), self.s2("connections"))

    def forged_tickets(self):
        return self.part(self.s2("forged"), self.s2("connections"))

    def bad_requests(self):
        return self.part(self.s2("client_errors"), self.s2("requests"))

    def ignored_challenges(self):
        return self.part(self.s2("ignored"), self.s2("ignored") + self.s2("passed"))

    def lost_capacity(self):
        if len(self.seen) < 2:
            return None
        peak = max(self.capacities)
        value = min(share(less(peak, count(bin_, "capacity")), peak) for bin_ in self.seen[:2])
        return value, value

    def lost_processes(self):
        if len(self.seen) < 2:
            return None
        all_ = [bin_["processes"] for bin_ in self.seen[:2]]
        value = min(share(less(each["expected"], each["reported"]), each["expected"]) for each in all_)
        return value, value

    def greater(self, name):
        value = max(count(bin_, name) for bin_ in self.seen[:2])
        return value, value

    def slow_disk(self):
        return self.greater("disk_write_us")

    def server_errors(self):
        return self.part(self.s2("server_errors"), self.s2("requests"))

    def busy_processor(self):
        base, now = self.base("cpu_bp"), self.b0("cpu_bp")
        return None if base is None else (less(now, base), now)

    def late_loop(self):
        return self.greater("loop_late_us")

    def foreign_fingerprints(self):
        now = mix_of(bin_["fingerprints"] for bin_ in self.seen[:2])
        then = [mix_of([self.opening["reference"]]), mix_of(bin_["fingerprints"] for bin_ in self.usual)]
        found = [value for value in (divergence(now, mix) for mix in then) if value is not None]
        return (min(found), self.s2("arrivals")) if found else None

    def concentrated_prefixes(self):
        prefixes = self.seen[0]["prefixes"]
        if prefixes is None:
            return None
        return share(sum(prefixes["top"][:10]), all_in(prefixes)), all_in(prefixes)

    def unfamiliar_prefixes(self):
        usual = [familiar_share(bin_) for bin_ in self.usual]
        usual = lower_median([value for value in usual if value is not None])
        now = familiar_share(self.seen[0])
        if usual is None or now is None:
            return None
        return less(usual, now), all_in(self.seen[0]["prefixes"])

    def sudden_arrivals(self):
        base = self.base("arrivals")
        if base is None or abs(self.seen[0]["start_ms"] - self.opening["announced_ms"]) <= 600_000:
            return None
        arrivals = [count(bin_, "arrivals") for bin_ in self.seen]
        if not any(now >= 4 * earlier + 100 for now, earlier in zip(arrivals, arrivals[1:])):
            return None
        return share(self.s2("arrivals"), self.n * base), self.s2("arrivals")

    def untaken_turns(self):
        called = self.s3("called")
        return less(10_000, share(self.s3("taken"), called)), called

    def surge(self):
        base = self.base("followed")
        if base is None:
            return None
        return share(self.s2("followed"), self.n * base), self.s2("followed")

    def follow_through(self):
        if len(self.seen) < 2:
            return None
        opened = self.before("opened")
        return min(share(self.s3("followed"), opened), 10_000), opened

    def acknowledged(self):
        return min(share(self.s2("bytes_acked"), self.s2("bytes_due")), 10_000), self.b0("listeners")

    # The verdict.

    def holds(self, needs):
        if needs is None or needs[0] == "on time":
            return True
        if needs[0] == "flat":
            return self.flat()
        if needs[0] == "arrivals":
            return self.arrivals_risen()
        return self.risen(needs[1], needs[2])

    def look_out(self, unsettled, rising, listeners):
        """Becomes wary, or is no more."""
        if self.wary is None:
            if unsettled:
                self.wary = count(self.seen[-1], "listeners")
                self.unproven += self.surplus("followed", 0, 3, len(self.seen))
                self.since_unsettled = 0
        else:
            unsettled = unsettled or rising
            self.since_unsettled = 0 if unsettled else self.since_unsettled + 1
            if self.since_unsettled < 3:
                self.unproven += self.surplus("followed", 0, 1, 1)
        self.unproven = min(self.unproven, listeners)
        if self.wary is not None and not unsettled:
            if listeners <= self.wary + self.wary // 8 + 50 and self.unproven <= listeners // 8 + 50:
                self.wary = None

    def step(self, bin_):
        if self.seen and bin_["start_ms"] - self.seen[0]["start_ms"] != BIN_MS:
            self.seen, self.calm = [], 0
        self.seen = [bin_] + self.seen[:2]
        self.capacities = (self.capacities + [count(bin_, "capacity")])[-30:]
        self.lateness = (self.lateness + [count(bin_, "loop_late_us")])[-5:]

        measured = {feature: getattr(self, feature)() for feature in TABLE}
        fires = {}
        for feature, (_, threshold, floor, needs) in TABLE.items():
            if measured[feature] is not None:
                value, counted = measured[feature]
                if value >= threshold and counted >= floor and self.holds(needs):
                    fires[feature] = value
        counting = [
            feature
            for feature in ("follow_through", "acknowledged")
            if measured[feature] is not None and measured[feature][1] >= TABLE[feature][2]
        ]
        impaired, slow = self.impaired(), self.slow()
        doubts = sum(TABLE[feature][0] == "doubt" for feature in fires)
        if slow and doubts < 3 and not any(feature in fires for feature in CORROBORATE):
            for feature in AMBIGUOUS:
                fires.pop(feature, None)
        if "shut_readers" in fires:
            fires.pop("surge", None)
        signs = {}
        for feature in fires:
            signs.setdefault(TABLE[feature][0], []).append(feature)
        if "l34" in signs or "l7" in signs:
            signs["own"] = [feature for feature in signs.get("own", []) if feature not in SOFT_FAULTS]
        there = [sign for sign in ("l34", "l7", "own") if signs.get(sign)]
        listeners = self.b0("listeners")

        rising = self.arrivals_rising()
        unsettled = doubts > 0
        if rising:
            unsettled = unsettled or len(self.usual) < 3 or measured["foreign_fingerprints"] is None
            for feature, (sign, threshold, floor, _) in TABLE.items():
                if sign == "doubt" and measured[feature] is not None:
                    value, counted = measured[feature]
                    unsettled = unsettled or value >= threshold // 2 and counted >= floor // 2
        self.look_out(unsettled, rising, listeners)
        bound = None if self.wary is None else self.wary + self.wary // 8 + 50

        low = any(measured[feature][0] < 5_000 for feature in counting)
        if len(there) > 1 or (there and "surge" in fires):
            class_ = "MIXED"
        elif there:
            class_ = {"l34": "L3/4", "l7": "L7", "own": "SELF-INFLICTED"}[there[0]]
        elif listeners < 20 and self.s2("arrivals") < 50 or doubts >= 2:
            class_ = "INSUFFICIENT"
        elif not counting or (low and (not impaired or doubts)):
            class_ = "INSUFFICIENT"
        else:
            class_ = "CROWD"

        def sign_confidence(sign):
            confidence = 7_000 + 1_000 * (len(signs[sign]) - 1)
            if sign != "own":
                confidence += 500 * doubts
            elif any(mark["mark"] in OUR_MARKS for each in self.seen[:2] for mark in each["marks"]):
                confidence += 500
            return min(confidence, 9_500)

        if class_ == "INSUFFICIENT":
            confidence = 0
        elif class_ == "CROWD":
            confidence = 9_500
            confidence -= 2_000 if self.wary is not None else 0
            confidence -= 2_000 if len(self.usual) < 3 else 0
            confidence -= 1_000 if impaired else 0
            confidence -= 2_000 if self.b0("waiting") > listeners and self.s3("opened") < 20 else 0
            confidence = max(confidence, 0)
        else:
            confidence = min(sign_confidence(sign) for sign in there)
            if "surge" in fires:
                confidence = min(confidence, 7_000)

        reasons = []
        for feature, (sign, threshold, _, _) in TABLE.items():
            if feature in ("follow_through", "acknowledged"):
                named = not there and feature in counting
            elif sign == "people":
                named = bool(there) and feature in fires
            else:
                named = feature in signs.get(sign, [])
            if named:
                value = measured[feature][0]
                reasons.append(reason(feature, sign, value, threshold))
        if self.wary is not None:
            reasons.append(reason("wary", "doubt", listeners, bound))

        settled = self.wary is None or len(self.usual) < 3 and not rising
        is_calm = class_ in ("CROWD", "INSUFFICIENT") and settled
        self.calm = self.calm + 1 if is_calm else 0
        if self.calm >= 3:
            self.usual = (self.usual + [self.seen[2]])[-30:]
        if self.line[0] != class_:
            self.line = (class_, bin_["start_ms"])
        return {
            "at_ms": bin_["start_ms"],
            "class": class_,
            "confidence_bp": confidence,
            "since_ms": self.line[1],
            "reasons": reasons,
        }


def reason(feature, sign, value, threshold):
    direction = "above" if value >= threshold else "below"
    return {"feature": feature, "sign": sign, "value": value, "threshold": threshold, "direction": direction}


# --- The command -------------------------------------------------------------------------------------------------


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ledgers", nargs="*", metavar="LEDGER")
    parser.add_argument("--key", help="the event's public key, 64 hexadecimal digits")
    parser.add_argument("--witness", action="append", default=[], help="a head that a listener saw")
    parser.add_argument("--skip-signatures", action="store_true", help="check hashes and places only")
    parser.add_argument("--faults-only", action="store_true", help="no verdicts, no words")
    parser.add_argument("--batch", action="store_true", help="read names of ledgers from standard input; exit 0")
    given = parser.parse_args()
    key = None
    if given.key is not None:
        try:
            key = PublicKey(bytes.fromhex(given.key))
        except ValueError as error:
            parser.error(f"--key: {error}")
    names = given.ledgers + (sys.stdin.read().splitlines() if given.batch else [])
    if not names:
        parser.error("no ledger is named")
    faults = 0
    for name in names:
        with open(name, "rb") as file:
            data = file.read()
        ledger, fault = read_ledger(data, key, given.witness, given.skip_signatures)
        if fault:
            faults += 1
            line, at, what = fault
            print(f"fault line {line} byte {at}" + ("" if given.faults_only else f": {what}"))
        elif given.faults_only:
            print(f"holds {ledger.lines}")
        else:
            if key is None:
                print(f"{name}: key taken from the ledger itself: {ledger.opening['key']}", file=sys.stderr)
            state = "closed" if ledger.closed else "open: lines may be missing at the end"
            print(f"holds {ledger.lines} lines, head {ledger.head}, {state}")
            if ledger.opening["thresholds"] != 1:
                print("judged by thresholds that are not these", file=sys.stderr)
            judge = Judge(ledger.opening)
            for bin_ in ledger.bins:
                print(json.dumps(judge.step(bin_), separators=(",", ":")))
    sys.exit(1 if faults and not given.batch else 0)


if __name__ == "__main__":
    main()
