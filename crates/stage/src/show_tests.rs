use super::*;
use model::{Digest, InviteId};

pub(crate) const START_S: i64 = 1_800_000_000;

/// Three seats: a host, a speaker, a co-host. Starts at [`START_S`], doors 15 minutes before.
pub(crate) fn event() -> Event {
    let seat = |id: u16, role, name: &str| Seat {
        id: SeatId(id),
        role,
        name: name.to_owned(),
        invite: InviteId([id as u8; 8]),
        revoked: false,
    };
    Event {
        slug: "majlis".parse().unwrap(),
        revision: 1,
        title: Bilingual { ar: "مجلس".to_owned(), en: "Majlis".to_owned() },
        starts_at: UnixTime::from_millis(START_S * 1_000),
        duration: None,
        doors_before: Duration::from_secs(900),
        auto_live: true,
        green_room: GreenRoom::Open,
        hold_on_silence: true,
        slate: None::<Digest>,
        invite_key: [0; 32],
        signing_key: [0; 32],
        seats: vec![
            seat(0, Role::Host, "Host"),
            seat(1, Role::Speaker, "Amal"),
            seat(2, Role::CoHost, "Badr"),
        ],
        created_at: UnixTime::from_millis(START_S * 1_000 - 86_400_000),
    }
}

const HOST: SeatId = SeatId(0);
const AMAL: SeatId = SeatId(1);
const BADR: SeatId = SeatId(2);

/// Milliseconds around the announced start.
fn at(ms: i64) -> UnixTime {
    UnixTime::from_millis(START_S * 1_000 + ms)
}

fn hold(message: &str) -> Command {
    Command::Hold { until: None, message: Bilingual { ar: String::new(), en: message.to_owned() } }
}

/// A show with a clock that jumps from deadline to deadline, and clients that send a packet every 20 ms.
struct Stand {
    show: Show,
    now: UnixTime,
    sending: BTreeSet<SourceId>,
    speaking: bool,
    /// Outputs in short, drained by [`Stand::heard`].
    said: Vec<String>,
    log: Vec<LogEntry>,
    anchored: Option<UnixTime>,
    states: Vec<(UnixTime, ShowState)>,
}

impl Stand {
    fn new(event: Event, now: UnixTime) -> Self {
        let mut stand = Self {
            show: Show::new(event, now),
            now,
            sending: BTreeSet::new(),
            speaking: false,
            said: Vec::new(),
            log: Vec::new(),
            anchored: None,
            states: Vec::new(),
        };
        stand.show.handle_timeout(now);
        stand.drain();
        stand
    }

    fn drain(&mut self) {
        while let Some(output) = self.show.poll_output() {
            let line = match output {
                Output::OpenDoors { doors } => {
                    assert_eq!(self.anchored, None, "doors open once");
                    self.anchored = Some(doors);
                    format!("doors {}", rel(doors))
                }
                Output::State { at, state } => {
                    self.states.push((at, state.clone()));
                    format!("{} {}", state.name(), rel(at))
                }
                Output::Layer { layer, at } => format!("layer {layer:?} {}", rel(at)),
                Output::Use { source, to } => {
                    let mix = if to.in_mix { "in" } else { "out" };
                    let active = if to.active { "active" } else { "spare" };
                    format!("use {} {active} {mix}", source.0)
                }
                Output::Close { source, why } => {
                    self.sending.remove(&source);
                    format!("close {} {}", source.0, why.name())
                }
                Output::Alarm { alarm, raised } => {
                    format!("{} {}", alarm.name(), if raised { "on" } else { "off" })
                }
                Output::Log(entry) => {
                    self.log.push(entry);
                    continue;
                }
            };
            self.said.push(line);
        }
    }

    /// Everything said since the last call.
    fn heard(&mut self) -> Vec<String> {
        std::mem::take(&mut self.said)
    }

    #[track_caller]
    fn expect(&mut self, lines: &[&str]) {
        assert_eq!(self.heard(), lines);
    }

    fn join(&mut self, seat: SeatId) -> SourceId {
        self.join_as(seat, false)
    }

    fn join_as(&mut self, seat: SeatId, standby: bool) -> SourceId {
        let Admitted { source, .. } =
            self.show.add_source(seat, SourceKind::Rtp, standby, self.now).expect("a free slot");
        self.sending.insert(source);
        self.drain();
        source
    }

    fn command(&mut self, command: Command) -> Result<bool, CommandError> {
        let result = self.show.command(command, self.now);
        self.drain();
        result
    }

    fn direct(&mut self, by: Actor, seat: SeatId, change: SeatChange) -> Result<bool, DirectError> {
        let result = self.show.direct(by, seat, change, self.now);
        self.drain();
        result
    }

    /// Runs to `until` in 20 ms steps of packets, plus every deadline of the show.
    fn run(&mut self, until: UnixTime) {
        while self.now < until {
            let step = self.now.plus(Duration::from_millis(20)).min(until);
            let busy = !self.sending.is_empty() || self.speaking;
            let due = self.show.poll_timeout().filter(|due| *due > self.now);
            self.now = match due {
                Some(due) if due < step => due,
                _ if busy => step,
                Some(due) => due.min(until),
                None => until,
            };
            for source in self.sending.clone() {
                self.show.handle_packet(source, self.now);
            }
            if self.speaking {
                self.show.handle_voice(self.now);
            }
            self.show.handle_timeout(self.now);
            self.drain();
        }
    }

    fn restored(&self) -> Show {
        Show::restore(self.show.event().clone(), &self.log, self.anchored, self.now)
    }
}

fn rel(time: UnixTime) -> String {
    format!("{:+}", time.as_millis() - START_S * 1_000)
}

const MUTE: SeatChange = SeatChange { muted: Some(true), on_stage: None };
const UNMUTE: SeatChange = SeatChange { muted: Some(false), on_stage: None };
const UP: SeatChange = SeatChange { muted: None, on_stage: Some(true) };
const DOWN: SeatChange = SeatChange { muted: None, on_stage: Some(false) };

#[test]
fn an_hour_on_time() {
    let mut stand = Stand::new(event(), at(-3_600_000));
    // 234 segments of 3.84 s before the start: the last that fit into 15 minutes.
    stand.run(at(-800_000));
    stand.expect(&["doors -898560", "doors -898560", "layer Slate -898560"]);
    let amal = stand.join(AMAL);
    stand.expect(&["use 0 spare out"]);
    stand.run(at(-799_000));
    stand.expect(&["use 0 active in"]);
    stand.run(at(3_600_000));
    stand.expect(&["live +0", "layer Stage +0"]);
    assert_eq!(stand.show.live_at(), Some(at(0)));
    assert_eq!(stand.command(Command::End), Ok(true));
    stand.expect(&["ended +3600000", "close 0 ended"]);
    assert_eq!(stand.show.add_source(AMAL, SourceKind::Rtp, false, stand.now), Err(AdmitError::Ended));
    stand.show.remove_source(amal, stand.now);
    assert_eq!(stand.show.poll_timeout(), None);
}

#[test]
fn doors_are_aligned_to_segments_and_at_once_when_late() {
    let start = at(0);
    let segment = SEGMENT_DURATION.as_nanos();
    for (before_s, now_ms) in
        [(900, -3_600_000), (900, -10_000), (900, -3_840), (900, -1), (0, -5_000), (7, -9_000)]
    {
        let doors = doors_time(start, Duration::from_secs(before_s), at(now_ms));
        let earliest = start.minus(Duration::from_secs(before_s)).max(at(now_ms));
        assert!(doors >= earliest && doors.since(earliest) < SEGMENT_DURATION, "{before_s} {now_ms}");
        assert_eq!(start.since(doors).as_nanos() % segment, 0);
    }
    assert_eq!(doors_time(start, Duration::from_secs(900), at(5)), at(5));
    // A timer that fires late does not move doors; a machine that slept does.
    let mut show = Show::new(event(), at(-10_000));
    assert_eq!(show.doors_at(), at(-7_680));
    show.handle_timeout(at(-7_400));
    assert_eq!(show.poll_output(), Some(Output::OpenDoors { doors: at(-7_680) }));
    let mut slept = Show::new(event(), at(-10_000));
    slept.handle_timeout(at(-5_000));
    assert_eq!(slept.poll_output(), None);
    assert_eq!(slept.doors_at(), at(-3_840));
}

#[test]
fn nobody_at_the_start_calls_the_host_and_the_first_to_come_goes_live() {
    let mut stand = Stand::new(event(), at(-10_000));
    stand.run(at(60_000));
    stand.expect(&["doors -7680", "doors -7680", "layer Slate -7680", "late_start on"]);
    stand.join(AMAL);
    stand.run(at(60_100));
    stand.expect(&[
        "use 0 spare out",
        "live +60020",
        "late_start off",
        "layer Stage +60020",
        "use 0 active in",
    ]);
}

#[test]
fn without_auto_live_it_waits_for_the_host() {
    let mut stand = Stand::new(Event { auto_live: false, ..event() }, at(-10_000));
    stand.join(HOST);
    stand.run(at(30_000));
    assert_eq!(*stand.show.state(), ShowState::Doors);
    assert!(stand.show.alarm(Alarm::LateStart));
    assert_eq!(stand.command(Command::Live), Ok(true));
    assert_eq!(stand.show.live_at(), Some(at(30_000)));
    assert!(!stand.show.alarm(Alarm::LateStart));
}

#[test]
fn the_start_moves_while_doors_are_open() {
    let mut stand = Stand::new(event(), at(-10_000));
    stand.join(HOST);
    stand.run(at(-2_000));
    let later = Event { revision: 2, starts_at: at(20_000), ..event() };
    assert!(stand.show.update_event(later.clone(), stand.now));
    assert!(!stand.show.update_event(later, stand.now), "the same revision is no change");
    stand.heard();
    stand.run(at(19_990));
    stand.expect(&[]);
    stand.run(at(20_100));
    stand.expect(&["live +20000", "layer Stage +20000"]);
}

#[test]
fn a_start_moved_into_the_past_means_now() {
    let mut stand = Stand::new(event(), at(-10_000));
    stand.join(HOST);
    stand.run(at(-2_000));
    stand.show.update_event(Event { revision: 2, starts_at: at(-5_000), ..event() }, stand.now);
    stand.drain();
    assert_eq!(stand.show.live_at(), Some(at(-2_000)));
}

#[test]
fn live_from_scheduled_opens_doors_at_once() {
    let mut stand = Stand::new(event(), at(-3_600_000));
    assert_eq!(stand.command(Command::Live), Ok(true));
    stand.expect(&["doors -3600000", "doors -3600000", "live -3600000", "layer Stage -3600000"]);
}

#[test]
fn orders_are_idempotent_and_wrong_ones_are_refused() {
    let mut stand = Stand::new(event(), at(-10_000));
    assert_eq!(stand.command(hold("")), Err(CommandError::NotLive));
    stand.run(at(-5_000));
    assert_eq!(stand.command(hold("")), Err(CommandError::NotLive));
    assert_eq!(stand.command(Command::Live), Ok(true));
    assert_eq!(stand.command(Command::Live), Ok(false));
    assert_eq!(stand.command(hold("soon")), Ok(true));
    assert_eq!(stand.command(hold("soon")), Ok(false));
    assert_eq!(stand.command(hold("very soon")), Ok(true));
    assert_eq!(stand.command(Command::Live), Ok(true));
    assert_eq!(stand.show.live_at(), Some(at(-5_000)), "the first time counts");
    assert_eq!(stand.command(Command::End), Ok(true));
    assert_eq!(stand.command(Command::End), Ok(false));
    assert_eq!(stand.command(Command::Live), Err(CommandError::Ended));
    assert_eq!(stand.command(hold("")), Err(CommandError::Ended));
    assert_eq!(stand.show.ended_at(), Some(at(-5_000)));
}

#[test]
fn dead_air_rings_after_five_seconds_and_speech_ends_the_hold() {
    let mut stand = Stand::new(event(), at(-10_000));
    let amal = stand.join(AMAL);
    stand.run(at(1_000));
    stand.heard();
    stand.direct(Actor::Seat(AMAL), AMAL, MUTE).unwrap();
    stand.expect(&["use 0 active out"]);
    stand.run(at(5_980));
    stand.expect(&[]);
    stand.run(at(6_500));
    stand.expect(&["dead_air on", "layer Hold +6000"]);
    assert_eq!(*stand.show.state(), ShowState::Live, "a hold of ours is no hold of the host's");
    // Unmuting ends the alarm, speaking ends the hold.
    stand.direct(Actor::Seat(AMAL), AMAL, UNMUTE).unwrap();
    stand.expect(&["dead_air off", "use 0 active in"]);
    stand.run(at(8_000));
    stand.expect(&[]);
    stand.speaking = true;
    stand.run(at(8_020));
    stand.expect(&["layer Stage +8020"]);
    stand.speaking = false;
    // A lost connection is dead air as well: half a second until it counts as lost, then five.
    stand.sending.remove(&amal);
    stand.run(at(60_000));
    stand.expect(&["dead_air on", "layer Hold +13520", "close 0 dead"]);
    assert_eq!(stand.command(Command::Live), Ok(true), "a host may end it too");
    stand.expect(&["layer Stage +60000"]);
}

#[test]
fn dead_air_without_the_setting_only_rings() {
    let mut stand = Stand::new(Event { hold_on_silence: false, ..event() }, at(-10_000));
    stand.command(Command::Live).unwrap();
    stand.heard();
    stand.run(at(60_000));
    stand.expect(&["dead_air on"]);
    stand.command(hold("")).unwrap();
    stand.expect(&["hold +60000", "dead_air off", "layer Hold +60000"]);
}

#[test]
fn a_standby_takes_over_and_gives_back() {
    let mut stand = Stand::new(event(), at(-10_000));
    let first = stand.join(AMAL);
    stand.run(at(1_000));
    let second = stand.join_as(AMAL, true);
    stand.run(at(2_000));
    stand.heard();
    assert_eq!(stand.show.add_source(AMAL, SourceKind::Rtp, false, stand.now), Err(AdmitError::SeatFull));
    assert_eq!(stand.show.seats().nth(1).unwrap().sources, 2);
    stand.sending.remove(&first);
    stand.run(at(2_500));
    stand.expect(&["use 0 spare out", "use 1 active in"]);
    // Back again: two seconds of packets, then the seat is its own once more.
    stand.sending.insert(first);
    stand.run(at(4_500));
    stand.expect(&[]);
    stand.run(at(4_600));
    stand.expect(&["use 0 active in", "use 1 spare out"]);
    stand.sending.remove(&second);
    stand.run(at(40_000));
    stand.expect(&["close 1 dead"]);
}

#[test]
fn a_plain_second_source_does_not_flap() {
    let mut stand = Stand::new(event(), at(-10_000));
    let first = stand.join(AMAL);
    stand.run(at(1_000));
    stand.join(AMAL);
    stand.run(at(2_000));
    stand.sending.remove(&first);
    stand.run(at(3_000));
    stand.sending.insert(first);
    stand.heard();
    stand.run(at(30_000));
    stand.expect(&[]);
}

#[test]
fn a_dropped_speaker_is_back_in_the_same_place() {
    let mut stand = Stand::new(Event { green_room: GreenRoom::Attended, ..event() }, at(-10_000));
    let amal = stand.join(AMAL);
    stand.run(at(1_000));
    stand.direct(Actor::Seat(HOST), AMAL, MUTE).unwrap();
    stand.sending.remove(&amal);
    stand.run(at(3_000));
    let again = stand.join(AMAL);
    stand.run(at(3_040));
    let seat = stand.show.seats().nth(1).unwrap();
    assert_eq!(
        (seat.place, seat.muted, seat.active, seat.connected),
        (Place::OnStage, true, Some(again), true)
    );
    // A third attempt takes the dead one's slot.
    let third = stand.join(AMAL);
    assert_eq!(third, SourceId(2));
    assert!(stand.heard().contains(&"close 0 replaced".to_owned()));
}

#[test]
fn sources_that_never_send_are_closed_and_do_not_block_the_seat() {
    let mut stand = Stand::new(event(), at(-10_000));
    for _ in 0..2 {
        let source = stand.join(AMAL);
        stand.sending.remove(&source);
    }
    assert_eq!(stand.show.add_source(AMAL, SourceKind::Rtp, false, stand.now), Err(AdmitError::SeatFull));
    stand.heard();
    stand.run(at(-7_900));
    let third = stand.join(AMAL);
    stand.sending.remove(&third);
    assert!(stand.heard().contains(&"close 0 replaced".to_owned()));
    stand.run(at(10_000));
    let heard = stand.heard();
    assert!(heard.contains(&"close 1 never_connected".to_owned()), "{heard:?}");
    assert!(heard.contains(&"close 2 never_connected".to_owned()), "{heard:?}");
}

#[test]
fn the_green_room_attended() {
    let mut stand = Stand::new(Event { green_room: GreenRoom::Attended, ..event() }, at(-10_000));
    stand.join(HOST);
    stand.run(at(1_000));
    stand.join(AMAL);
    stand.join(BADR);
    stand.run(at(2_000));
    let places: Vec<Place> = stand.show.seats().map(|seat| seat.place).collect();
    assert_eq!(places, [Place::OnStage, Place::Waiting, Place::OnStage], "those who direct need no host");
    stand.heard();
    stand.direct(Actor::Seat(BADR), AMAL, UP).unwrap();
    stand.expect(&["use 1 active in"]);
    stand.direct(Actor::Operator, AMAL, DOWN).unwrap();
    stand.expect(&["use 1 active out"]);
}

#[test]
fn who_may_direct_whom() {
    let rows = [
        (Actor::Operator, HOST, DOWN, true),
        (Actor::Seat(HOST), BADR, DOWN, true),
        (Actor::Seat(BADR), AMAL, MUTE, true),
        (Actor::Seat(BADR), BADR, DOWN, true),
        (Actor::Seat(BADR), HOST, MUTE, false),
        (Actor::Seat(AMAL), AMAL, MUTE, true),
        (Actor::Seat(AMAL), AMAL, UP, false),
        (Actor::Seat(AMAL), BADR, MUTE, false),
        (Actor::Seat(SeatId(9)), AMAL, MUTE, false),
    ];
    for (by, seat, change, allowed) in rows {
        let mut stand = Stand::new(event(), at(-10_000));
        let expected = if allowed { Ok(true) } else { Err(DirectError::Forbidden) };
        assert_eq!(stand.direct(by, seat, change), expected, "{by:?} {seat:?} {change:?}");
    }
    let mut stand = Stand::new(event(), at(-10_000));
    assert_eq!(stand.direct(Actor::Operator, SeatId(9), MUTE), Err(DirectError::UnknownSeat));
    assert_eq!(stand.direct(Actor::Operator, AMAL, UNMUTE), Ok(false));
}

#[test]
fn who_is_kept_back_stays_back() {
    let mut stand = Stand::new(event(), at(-10_000));
    stand.join(AMAL);
    stand.run(at(-5_000));
    stand.direct(Actor::Operator, AMAL, DOWN).unwrap();
    stand.run(at(10_000));
    assert_eq!(*stand.show.state(), ShowState::Doors, "nobody who may go on stage is there");
    stand.join(HOST);
    stand.run(at(11_000));
    assert_eq!(*stand.show.state(), ShowState::Live);
    assert_eq!(stand.show.seats().nth(1).unwrap().place, Place::KeptBack);
}

#[test]
fn a_revoked_seat_loses_its_sources() {
    let mut stand = Stand::new(event(), at(-10_000));
    stand.join(AMAL);
    stand.run(at(1_000));
    stand.heard();
    let mut changed = Event { revision: 2, ..event() };
    changed.seats[1].revoked = true;
    stand.show.update_event(changed, stand.now);
    stand.drain();
    stand.expect(&["close 0 revoked"]);
    assert_eq!(stand.show.add_source(AMAL, SourceKind::Rtp, false, stand.now), Err(AdmitError::UnknownSeat));
}

#[test]
fn an_ogg_stream_may_pause_between_pages() {
    let mut stand = Stand::new(event(), at(-10_000));
    let Admitted { source, .. } = stand.show.add_source(AMAL, SourceKind::Stream, false, stand.now).unwrap();
    stand.show.handle_packet(source, stand.now);
    stand.run(stand.now.plus(Duration::from_millis(2_480)));
    assert!(stand.show.seats().nth(1).unwrap().connected);
    stand.run(stand.now.plus(Duration::from_millis(40)));
    assert!(!stand.show.seats().nth(1).unwrap().connected);
}

#[test]
fn alarms_of_the_shell_ring_once() {
    let mut stand = Stand::new(event(), at(-10_000));
    for raised in [true, true, false, false] {
        stand.show.set_alarm(Alarm::ClockStep, raised, stand.now);
    }
    stand.drain();
    stand.expect(&["clock_step on", "clock_step off"]);
}

/// A small reproducible generator (xorshift64*).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % sides
    }
}

/// What must hold whatever happens, checked against a few facts kept on the side.
#[derive(Default)]
struct Watch {
    state: Option<ShowState>,
    uses: BTreeMap<SourceId, SourceUse>,
    /// Last packet of each source, to know the dead without asking the show.
    packets: BTreeMap<SourceId, (SeatId, UnixTime)>,
    /// Since when a seat's active source has been dead although another is alive.
    wrong_since: BTreeMap<SeatId, UnixTime>,
}

impl Watch {
    fn check(&mut self, stand: &mut Stand, seed: u64) {
        let now = stand.now;
        for (_, state) in stand.states.drain(..) {
            let from = self.state.take().unwrap_or(ShowState::Scheduled);
            let allowed = matches!(
                (from.name(), state.name()),
                ("scheduled", "doors" | "ended")
                    | ("doors", "live" | "ended")
                    | ("live", "hold" | "ended")
                    | ("hold", "live" | "hold" | "ended")
            );
            assert!(allowed, "seed {seed}: {} → {}", from.name(), state.name());
            self.state = Some(state);
        }
        for seat in [HOST, AMAL, BADR] {
            let active: Vec<SourceId> =
                self.uses.iter().filter(|(_, to)| to.seat == seat && to.active).map(|(id, _)| *id).collect();
            assert!(active.len() <= 1, "seed {seed}: {seat:?} has two active sources {active:?}");
            let alive = |id: &SourceId| {
                self.packets.get(id).is_some_and(|(_, last)| now.since(*last) < SourceKind::Rtp.dead_after())
            };
            let someone = self.packets.iter().any(|(id, (of, _))| *of == seat && alive(id));
            let wrong = someone && !active.first().is_some_and(alive);
            if !wrong {
                self.wrong_since.remove(&seat);
            }
            let since = *self.wrong_since.entry(seat).or_insert(now);
            if wrong {
                assert!(
                    now.since(since) <= Duration::from_secs(1),
                    "seed {seed}: {seat:?} has a dead source"
                );
            }
        }
        let heard = self.uses.values().filter(|to| to.in_mix && !to.active).count();
        assert_eq!(heard, 0, "seed {seed}: a standby is in the mix");
    }
}

fn facts(show: &Show) -> impl PartialEq + std::fmt::Debug + use<> {
    let seats: Vec<_> = show.seats().map(|seat| (seat.id, seat.place, seat.muted)).collect();
    (show.state().clone(), show.live_at(), show.ended_at(), show.doors, seats)
}

fn walk(seed: u64) {
    let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let attended = dice.roll(2) == 0;
    let first = Event {
        green_room: if attended { GreenRoom::Attended } else { GreenRoom::Open },
        auto_live: dice.roll(3) > 0,
        hold_on_silence: dice.roll(2) == 0,
        ..event()
    };
    let mut revision = 1;
    let mut stand = Stand::new(first, at(-20_000));
    let mut watch = Watch::default();
    for _ in 0..300 {
        let seat = SeatId(dice.roll(3) as u16);
        match dice.roll(20) {
            0..=4 => {
                if let Ok(admitted) =
                    stand.show.add_source(seat, SourceKind::Rtp, dice.roll(3) == 0, stand.now)
                    && dice.roll(4) > 0
                {
                    stand.sending.insert(admitted.source);
                }
            }
            5..=6 => {
                let pick = stand.sending.iter().nth(dice.roll(6) as usize).copied();
                pick.map(|source| stand.sending.remove(&source));
            }
            7 => {
                if let Some(source) = stand.sending.first().copied() {
                    stand.sending.remove(&source);
                    stand.show.remove_source(source, stand.now);
                }
            }
            8..=11 => {
                let change = [MUTE, UNMUTE, UP, DOWN][dice.roll(4) as usize];
                let by = [Actor::Operator, Actor::Seat(SeatId(dice.roll(3) as u16))][dice.roll(2) as usize];
                let _ = stand.show.direct(by, seat, change, stand.now);
            }
            12 => _ = stand.show.command(Command::Live, stand.now),
            13 => _ = stand.show.command(hold(["a", "b"][dice.roll(2) as usize]), stand.now),
            14 if dice.roll(6) == 0 => _ = stand.show.command(Command::End, stand.now),
            15 => {
                revision += 1;
                let moved = Event {
                    revision,
                    starts_at: stand.now.plus(Duration::from_millis(dice.roll(30_000))),
                    ..stand.show.event().clone()
                };
                stand.show.update_event(moved, stand.now);
            }
            16 => stand.speaking = !stand.speaking,
            _ => {}
        }
        let until = stand.now.plus(Duration::from_millis(dice.roll(3_000)));
        while stand.now < until {
            // In steps, so that what is told and what is true can be compared all the time.
            let step = stand.now.plus(Duration::from_millis(100)).min(until);
            observe(&mut stand, &mut watch);
            for source in &stand.sending {
                if let Some(to) = watch.uses.get(source) {
                    watch.packets.insert(*source, (to.seat, step));
                }
            }
            stand.run(step);
            observe(&mut stand, &mut watch);
            watch.check(&mut stand, seed);
        }
        assert_eq!(facts(&stand.restored()), facts(&stand.show), "seed {seed}: restore(log) is another show");
        if *stand.show.state() == ShowState::Ended {
            assert_eq!(stand.show.sources.all.len(), 0, "seed {seed}");
        }
    }
}

/// Takes over what the show said about sources. `Stand` keeps lines only, so the uses are read from the show.
fn observe(stand: &mut Stand, watch: &mut Watch) {
    stand.drain();
    watch.uses = stand
        .show
        .sources
        .all
        .keys()
        .filter_map(|id| stand.show.source_use(*id).map(|to| (*id, to)))
        .collect();
    let uses = &watch.uses;
    watch.packets.retain(|id, _| uses.contains_key(id));
}

#[test]
fn a_hundred_random_walks_keep_the_rules() {
    for seed in 1..=100 {
        walk(seed);
    }
}
