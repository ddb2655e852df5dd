//! The state machine of one show.
//!
//! ```text
//!              max(start − doors_before, now)          start and a speaker, or "live"
//!   scheduled ────────────────────────────────► doors ────────────────────────────────► live ◄──► hold
//!       │  └─────────────────── "live": doors at once ─────────────────────────────────►  │         │
//!       └───────────────────────────────────────┴────────────── "end" ────────────────────┴─────────┴──► ended
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use model::{
    Bilingual, Event, GreenRoom, Role, SEGMENT_DURATION, Seat, SeatId, SeatSource, ShowState, UnixTime,
};

use crate::seats::{Source, Sources, Standing};
use crate::{
    Actor, AdmitError, Admitted, CloseReason, DirectError, LogEntry, LogItem, Place, SeatChange, SeatView,
    SourceId, SourceKind, SourceUse,
};

/// Dead air for this long raises the alarm.
pub const DEAD_AIR_AFTER: Duration = Duration::from_secs(5);
/// A source that has sent nothing this long after it was let in is closed.
pub const SOURCE_CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// A source that has been dead for this long is closed.
pub const SOURCE_REMOVED_AFTER: Duration = Duration::from_secs(30);
/// A new source holds its slot against others for this long before its first packet.
const CONNECT_GRACE: Duration = Duration::from_secs(2);
/// A standby that has taken over gives the seat back once the first has been alive for this long.
const SETTLED_AFTER: Duration = Duration::from_secs(2);
/// Doors missed by more than this are planned anew.
const DOORS_LATE_MAX: Duration = Duration::from_secs(1);

const _: () = assert!(CONNECT_GRACE.as_millis() < SOURCE_CONNECT_WITHIN.as_millis());
const _: () = assert!(SOURCE_CONNECT_WITHIN.as_millis() < SOURCE_REMOVED_AFTER.as_millis());

/// Something a person should look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Alarm {
    /// Live, and for five seconds nobody on stage was connected, or all were muted.
    DeadAir,
    /// The announced start has passed and the show is not live.
    LateStart,
    /// The wall clock was moved by more than a second since doors. Nothing else moved.
    ClockStep,
    /// The recording is not being written as it should.
    Recorder,
}

impl Alarm {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::DeadAir, Self::LateStart, Self::ClockStep, Self::Recorder];

    /// Its name in the API, logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::DeadAir => "dead_air",
            Self::LateStart => "late_start",
            Self::ClockStep => "clock_step",
            Self::Recorder => "recorder",
        }
    }
}

/// What the programme plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// The slate before the start.
    Slate,
    /// The mix of the stage.
    Stage,
    /// The hold slate.
    Hold,
}

/// An order of the host or the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// On air, from doors or hold. From `scheduled` it opens doors first, at once.
    Live,
    /// Hold slate on air. Again, with another message, it changes the message.
    Hold {
        /// When it is expected to go on. A promise to listeners; nothing happens then by itself.
        until: Option<UnixTime>,
        /// What listeners are told; may be empty.
        message: Bilingual,
    },
    /// Over, for good.
    End,
}

/// Why an order was refused; the show is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The show is over, and stays so.
    #[error("the show has ended")]
    Ended,
    /// Only a show that is live can be held.
    #[error("the show is not live yet")]
    NotLive,
}

/// What a shell has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Anchor the event so that media time 0 is at `doors`, durably, and start the programme.
    OpenDoors {
        /// Media time 0; at most a second before now, or the moment of the command.
        doors: UnixTime,
    },
    /// The show moved. Tell everyone.
    State {
        /// Since when: the announced start for a show that went live by itself on time.
        at: UnixTime,
        /// Where it is now.
        state: ShowState,
    },
    /// Play this from the sample at `at` on.
    Layer {
        /// What.
        layer: Layer,
        /// From when.
        at: UnixTime,
    },
    /// Use a source so.
    Use {
        /// Which.
        source: SourceId,
        /// How.
        to: SourceUse,
    },
    /// A source is gone; close its connection.
    Close {
        /// Which.
        source: SourceId,
        /// Why.
        why: CloseReason,
    },
    /// An alarm rings, or stopped.
    Alarm {
        /// Which.
        alarm: Alarm,
        /// Whether it rings.
        raised: bool,
    },
    /// Append to the event's log, in this order.
    Log(LogEntry),
}

/// When doors open: `doors_before` ahead of the start, or now if that is past, moved later by less than a segment so
/// that the start falls on the boundary of a segment. At once if the start has passed.
pub fn doors_time(starts_at: UnixTime, doors_before: Duration, now: UnixTime) -> UnixTime {
    let earliest = starts_at.minus(doors_before).max(now);
    if earliest >= starts_at {
        return earliest;
    }
    let segments = starts_at.since(earliest).as_nanos() / SEGMENT_DURATION.as_nanos();
    starts_at.minus(SEGMENT_DURATION.saturating_mul(u32::try_from(segments).unwrap_or(u32::MAX)))
}

/// One event on its stage. Drain [`Show::poll_output`] after every call that takes `now`.
#[derive(Clone, Debug)]
pub struct Show {
    event: Event,
    state: ShowState,
    /// While scheduled: when doors are to open. Fixed when planned, so that a late timer does not move it.
    planned_doors: UnixTime,
    doors: Option<UnixTime>,
    live_at: Option<UnixTime>,
    ended_at: Option<UnixTime>,
    standings: BTreeMap<SeatId, Standing>,
    sources: Sources,
    /// Since when nobody on stage could be heard.
    voiceless_since: Option<UnixTime>,
    silence_hold: bool,
    alarms: BTreeSet<Alarm>,
    told_layer: Option<Layer>,
    settled_at: UnixTime,
    outputs: VecDeque<Output>,
}

impl Show {
    /// A show that has not begun.
    pub fn new(event: Event, now: UnixTime) -> Self {
        Self::restore(event, [].iter(), None, now)
    }

    /// The show as its log left it. `anchored` is media time 0 if the event's anchor was written, which may be ahead
    /// of the log. Sources are not restored: their connections died with the process, and come back.
    pub fn restore<'a>(
        event: Event,
        log: impl IntoIterator<Item = &'a LogEntry>,
        anchored: Option<UnixTime>,
        now: UnixTime,
    ) -> Self {
        let mut show = Self {
            planned_doors: doors_time(event.starts_at, event.doors_before, now),
            event,
            state: ShowState::Scheduled,
            doors: anchored,
            live_at: None,
            ended_at: None,
            standings: BTreeMap::new(),
            sources: Sources::default(),
            voiceless_since: None,
            silence_hold: false,
            alarms: BTreeSet::new(),
            told_layer: None,
            settled_at: now,
            outputs: VecDeque::new(),
        };
        for entry in log {
            match &entry.item {
                LogItem::Doors { doors } => show.doors = show.doors.or(Some(*doors)),
                LogItem::State(state) => {
                    match state {
                        ShowState::Live => show.live_at = show.live_at.or(Some(entry.at)),
                        ShowState::Ended => show.ended_at = Some(entry.at),
                        _ => {}
                    }
                    show.state = state.clone();
                }
                LogItem::Seat { seat, place, muted } => {
                    show.standings.insert(*seat, Standing { place: *place, muted: *muted });
                }
                _ => {}
            }
        }
        if show.doors.is_some() && show.state == ShowState::Scheduled {
            show.state = ShowState::Doors;
        }
        show
    }

    /// The event as it is in force here.
    pub fn event(&self) -> &Event {
        &self.event
    }

    /// Where the show stands.
    pub fn state(&self) -> &ShowState {
        &self.state
    }

    /// When doors opened, or are going to.
    pub fn doors_at(&self) -> UnixTime {
        self.doors.unwrap_or(self.planned_doors)
    }

    /// When it first went live.
    pub fn live_at(&self) -> Option<UnixTime> {
        self.live_at
    }

    /// When it ended.
    pub fn ended_at(&self) -> Option<UnixTime> {
        self.ended_at
    }

    /// The alarms that ring.
    pub fn alarms(&self) -> impl Iterator<Item = Alarm> {
        self.alarms.iter().copied()
    }

    /// Whether this alarm rings.
    pub fn alarm(&self, alarm: Alarm) -> bool {
        self.alarms.contains(&alarm)
    }

    /// Whether the hold slate plays because of dead air.
    pub fn silence_hold(&self) -> bool {
        self.silence_hold
    }

    /// The seats, in the order of their ids; withdrawn ones are left out.
    pub fn seats(&self) -> impl Iterator<Item = SeatView> {
        self.open_seats().map(|seat| {
            let standing = self.standing(seat.id);
            SeatView {
                id: seat.id,
                role: seat.role,
                name: seat.name.clone(),
                connected: self.sources.connected(seat.id),
                sources: self.sources.of(seat.id).count(),
                active: self.sources.active.get(&seat.id).copied(),
                place: standing.place,
                muted: standing.muted,
            }
        })
    }

    /// How a source is used, if there is such a source and it was ever told.
    pub fn source_use(&self, source: SourceId) -> Option<SourceUse> {
        self.sources.all.get(&source)?.told
    }

    /// Takes the event as control changed it. Older or equal revisions are ignored. Returns whether it was taken.
    pub fn update_event(&mut self, event: Event, now: UnixTime) -> bool {
        if event.revision <= self.event.revision || event.slug != self.event.slug {
            return false;
        }
        let replan = event.starts_at != self.event.starts_at || event.doors_before != self.event.doors_before;
        if replan {
            self.planned_doors = doors_time(event.starts_at, event.doors_before, now);
            // A start moved into the past means "now", not "then".
            self.settled_at = self.settled_at.max(now);
        }
        self.log(now, LogItem::EventChanged { revision: event.revision, starts_at: event.starts_at });
        self.event = event;
        let revoked: Vec<SourceId> = self
            .sources
            .all
            .iter()
            .filter(|(_, source)| self.seat(source.seat).is_none())
            .map(|(id, _)| *id)
            .collect();
        for id in revoked {
            self.close(id, CloseReason::Revoked, now);
        }
        self.settle(now);
        true
    }

    /// Takes an order. One that asks for what is already so changes nothing. Returns whether anything changed.
    ///
    /// # Errors
    /// [`CommandError`].
    pub fn command(&mut self, command: Command, now: UnixTime) -> Result<bool, CommandError> {
        self.settle(now);
        let changed = match (&self.state, command) {
            (ShowState::Ended, Command::End) => false,
            (ShowState::Ended, _) => return Err(CommandError::Ended),
            (_, Command::End) => {
                self.end(now);
                true
            }
            (ShowState::Scheduled, Command::Live) => {
                self.open_doors(now, now);
                self.go_live(now);
                true
            }
            (ShowState::Doors, Command::Live) => {
                self.go_live(now);
                true
            }
            (ShowState::Hold { .. }, Command::Live) => {
                self.enter(ShowState::Live, now);
                true
            }
            (ShowState::Live, Command::Live) => std::mem::take(&mut self.silence_hold),
            (ShowState::Live | ShowState::Hold { .. }, Command::Hold { until, message }) => {
                let hold = ShowState::Hold { until, message };
                let changed = self.state != hold;
                if changed {
                    self.enter(hold, now);
                }
                changed
            }
            (ShowState::Scheduled | ShowState::Doors, Command::Hold { .. }) => {
                return Err(CommandError::NotLive);
            }
        };
        self.settle(now);
        Ok(changed)
    }

    /// Changes a seat's mute or place. Everyone may mute and unmute themselves; hosts and the operator direct
    /// everyone, co-hosts everyone but hosts. Returns whether anything changed.
    ///
    /// # Errors
    /// [`DirectError`].
    pub fn direct(
        &mut self,
        by: Actor,
        seat: SeatId,
        change: SeatChange,
        now: UnixTime,
    ) -> Result<bool, DirectError> {
        let role = self.seat(seat).ok_or(DirectError::UnknownSeat)?.role;
        if self.state == ShowState::Ended {
            return Err(DirectError::Ended);
        }
        let allowed = match by {
            Actor::Operator => true,
            Actor::Seat(own) => match self.seat(own).map(|seat| seat.role) {
                Some(Role::Host) => true,
                Some(Role::CoHost) => own == seat || role != Role::Host,
                Some(Role::Speaker) => own == seat && change.on_stage.is_none(),
                None => false,
            },
        };
        if !allowed {
            return Err(DirectError::Forbidden);
        }
        let mut standing = self.standing(seat);
        standing.muted = change.muted.unwrap_or(standing.muted);
        standing.place = match change.on_stage {
            Some(true) => Place::OnStage,
            Some(false) => Place::KeptBack,
            None => standing.place,
        };
        let changed = self.stand(seat, standing, now);
        self.settle(now);
        Ok(changed)
    }

    /// Lets a source of a seat in. `standby` says that it is meant as one: it gives way to the other source once that
    /// has been alive for two seconds. Whichever is alive while the other is not has the seat.
    ///
    /// # Errors
    /// [`AdmitError`].
    pub fn add_source(
        &mut self,
        seat: SeatId,
        kind: SourceKind,
        standby: bool,
        now: UnixTime,
    ) -> Result<Admitted, AdmitError> {
        self.settle(now);
        if self.state == ShowState::Ended {
            return Err(AdmitError::Ended);
        }
        self.seat(seat).ok_or(AdmitError::UnknownSeat)?;
        let taken: Vec<SeatSource> = self.sources.of(seat).map(|(_, source)| source.slot).collect();
        let slot = match [SeatSource::A, SeatSource::B].into_iter().find(|slot| !taken.contains(slot)) {
            Some(free) => free,
            None => {
                let (_, id, slot) = self
                    .sources
                    .of(seat)
                    .filter(|(_, source)| match source.last_packet {
                        Some(_) => !source.alive(),
                        None => now.since(source.admitted) >= CONNECT_GRACE,
                    })
                    .map(|(id, source)| (source.last_packet.unwrap_or(source.admitted), id, source.slot))
                    .min_by_key(|(since, id, _)| (*since, *id))
                    .ok_or(AdmitError::SeatFull)?;
                self.close(id, CloseReason::Replaced, now);
                slot
            }
        };
        let source = self.sources.insert(Source {
            seat,
            slot,
            kind,
            yields: standby,
            admitted: now,
            last_packet: None,
            alive_since: None,
            told: None,
        });
        self.settle(now);
        Ok(Admitted { source, slot })
    }

    /// A source's connection has ended.
    pub fn remove_source(&mut self, source: SourceId, now: UnixTime) {
        self.close(source, CloseReason::Gone, now);
        self.settle(now);
    }

    /// A source sent a packet of sound. Cheap: most packets change nothing.
    pub fn handle_packet(&mut self, source: SourceId, now: UnixTime) {
        let Some(entry) = self.sources.all.get_mut(&source) else { return };
        let silent = entry.dies_at().is_none_or(|dies| now >= dies);
        entry.last_packet = Some(now);
        if silent || !entry.alive() {
            entry.alive_since = Some(now);
            let seat = entry.seat;
            self.log(now, LogItem::SourceHeard { seat, source });
            self.settle(now);
        }
    }

    /// Someone in the mix is speaking.
    pub fn handle_voice(&mut self, now: UnixTime) {
        if self.silence_hold && self.someone_can_be_heard() {
            self.silence_hold = false;
            self.settle(now);
        }
    }

    /// An alarm that the shell watches: [`Alarm::ClockStep`] or [`Alarm::Recorder`].
    pub fn set_alarm(&mut self, alarm: Alarm, raised: bool, now: UnixTime) {
        let changed = if raised { self.alarms.insert(alarm) } else { self.alarms.remove(&alarm) };
        if changed {
            self.log(now, LogItem::Alarm { alarm, raised });
            self.outputs.push_back(Output::Alarm { alarm, raised });
        }
    }

    /// Time has passed. May be called at any time; must be called at [`Show::poll_timeout`].
    pub fn handle_timeout(&mut self, now: UnixTime) {
        self.settle(now);
    }

    /// When something happens by itself next.
    pub fn poll_timeout(&self) -> Option<UnixTime> {
        let show = match self.state {
            ShowState::Scheduled => Some(self.planned_doors),
            ShowState::Doors => Some(self.event.starts_at).filter(|start| *start > self.settled_at),
            ShowState::Live if !self.alarm(Alarm::DeadAir) => {
                self.voiceless_since.map(|since| since.plus(DEAD_AIR_AFTER))
            }
            _ => None,
        };
        let sources = self.sources.all.values().filter_map(|source| match source.last_packet {
            Some(_) if source.alive() => source.dies_at(),
            Some(last) => Some(last.plus(SOURCE_REMOVED_AFTER)),
            None => Some(source.admitted.plus(SOURCE_CONNECT_WITHIN)),
        });
        let settling = self.sources.all.values().filter_map(|source| {
            source.alive_since.map(|since| since.plus(SETTLED_AFTER)).filter(|at| *at > self.settled_at)
        });
        show.into_iter().chain(sources).chain(settling).min()
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn open_seats(&self) -> impl Iterator<Item = &Seat> {
        self.event.seats.iter().filter(|seat| !seat.revoked)
    }

    fn seat(&self, id: SeatId) -> Option<&Seat> {
        self.open_seats().find(|seat| seat.id == id)
    }

    fn standing(&self, seat: SeatId) -> Standing {
        self.standings.get(&seat).copied().unwrap_or_default()
    }

    fn stand(&mut self, seat: SeatId, standing: Standing, now: UnixTime) -> bool {
        let changed = self.standing(seat) != standing;
        if changed {
            self.standings.insert(seat, standing);
            self.log(now, LogItem::Seat { seat, place: standing.place, muted: standing.muted });
        }
        changed
    }

    fn log(&mut self, at: UnixTime, item: LogItem) {
        self.outputs.push_back(Output::Log(LogEntry { at, item }));
    }

    fn enter(&mut self, state: ShowState, at: UnixTime) {
        self.state = state.clone();
        self.silence_hold = false;
        self.voiceless_since = None;
        self.log(at, LogItem::State(state.clone()));
        self.outputs.push_back(Output::State { at, state });
    }

    fn open_doors(&mut self, doors: UnixTime, now: UnixTime) {
        self.doors = Some(doors);
        self.outputs.push_back(Output::OpenDoors { doors });
        self.log(now, LogItem::Doors { doors });
        self.enter(ShowState::Doors, doors);
    }

    fn go_live(&mut self, at: UnixTime) {
        self.live_at = Some(at);
        self.enter(ShowState::Live, at);
        let present: Vec<SeatId> =
            self.open_seats().map(|seat| seat.id).filter(|seat| self.sources.connected(*seat)).collect();
        for seat in present {
            self.bring_up(seat, at);
        }
    }

    fn end(&mut self, now: UnixTime) {
        self.ended_at = Some(now);
        self.enter(ShowState::Ended, now);
        let all: Vec<SourceId> = self.sources.all.keys().copied().collect();
        for id in all {
            self.close(id, CloseReason::Ended, now);
        }
    }

    /// On stage by the event's rule, not against a host's will.
    fn bring_up(&mut self, seat: SeatId, now: UnixTime) {
        let standing = self.standing(seat);
        if standing.place == Place::Waiting {
            self.stand(seat, Standing { place: Place::OnStage, ..standing }, now);
        }
    }

    fn close(&mut self, source: SourceId, why: CloseReason, now: UnixTime) {
        if let Some(gone) = self.sources.all.remove(&source) {
            self.log(now, LogItem::SourceClosed { seat: gone.seat, source, why });
            self.outputs.push_back(Output::Close { source, why });
        }
    }

    fn someone_can_be_heard(&self) -> bool {
        self.open_seats().any(|seat| {
            let standing = self.standing(seat.id);
            standing.place == Place::OnStage
                && !standing.muted
                && self.sources.active_alive(seat.id).is_some()
        })
    }

    /// Brings everything in line with `now`. Idempotent: a second call with the same time says nothing.
    fn settle(&mut self, now: UnixTime) {
        self.settle_sources(now);
        self.settle_state(now);
        if matches!(self.state, ShowState::Live | ShowState::Hold { .. }) {
            let open = self.event.green_room == GreenRoom::Open;
            let arrived: Vec<SeatId> = self
                .open_seats()
                .filter(|seat| (open || seat.role.directs()) && self.sources.connected(seat.id))
                .map(|seat| seat.id)
                .collect();
            for seat in arrived {
                self.bring_up(seat, now);
            }
        }
        self.settle_dead_air(now);
        let late =
            matches!(self.state, ShowState::Doors | ShowState::Scheduled) && now >= self.event.starts_at;
        self.set_alarm(Alarm::LateStart, late, now);
        self.tell(now);
        self.settled_at = self.settled_at.max(now);
    }

    fn settle_sources(&mut self, now: UnixTime) {
        let mut lost = Vec::new();
        let mut over = Vec::new();
        for (id, source) in &mut self.sources.all {
            if source.alive() && source.dies_at().is_none_or(|dies| now >= dies) {
                source.alive_since = None;
                lost.push((source.seat, *id));
            }
            match source.last_packet {
                Some(last) if now >= last.plus(SOURCE_REMOVED_AFTER) => over.push((*id, CloseReason::Dead)),
                None if now >= source.admitted.plus(SOURCE_CONNECT_WITHIN) => {
                    over.push((*id, CloseReason::NeverConnected));
                }
                _ => {}
            }
        }
        for (seat, source) in lost {
            self.log(now, LogItem::SourceLost { seat, source });
        }
        for (id, why) in over {
            self.close(id, why, now);
        }
        let seats: BTreeSet<SeatId> =
            self.sources.all.values().map(|s| s.seat).chain(self.sources.active.keys().copied()).collect();
        for seat in seats {
            let chosen = self.sources.choose(seat, SETTLED_AFTER, now);
            if chosen != self.sources.active.get(&seat).copied() {
                match chosen {
                    Some(id) => self.sources.active.insert(seat, id),
                    None => self.sources.active.remove(&seat),
                };
                self.log(now, LogItem::SourceActive { seat, source: chosen });
            }
        }
    }

    fn settle_state(&mut self, now: UnixTime) {
        if self.state == ShowState::Scheduled && now >= self.planned_doors {
            if now.since(self.planned_doors) > DOORS_LATE_MAX {
                self.planned_doors = doors_time(self.event.starts_at, self.event.doors_before, now);
            }
            if now >= self.planned_doors {
                self.open_doors(self.planned_doors, now);
            }
        }
        let start = self.event.starts_at;
        if self.state == ShowState::Doors && now >= start && self.event.auto_live {
            let someone = self.open_seats().any(|seat| {
                self.sources.connected(seat.id) && self.standing(seat.id).place != Place::KeptBack
            });
            if someone {
                // On time if this is the first look since the start; then the start's very sample is meant.
                let on_time = self.settled_at < start;
                self.go_live(if on_time { start.max(self.doors_at()) } else { now });
            }
        }
    }

    fn settle_dead_air(&mut self, now: UnixTime) {
        if self.state != ShowState::Live || self.someone_can_be_heard() {
            self.voiceless_since = None;
            self.set_alarm(Alarm::DeadAir, false, now);
            return;
        }
        let since = *self.voiceless_since.get_or_insert(now);
        if now.since(since) >= DEAD_AIR_AFTER && !self.alarm(Alarm::DeadAir) {
            self.set_alarm(Alarm::DeadAir, true, now);
            self.silence_hold = self.event.hold_on_silence;
        }
    }

    /// Says what is to be played and how each source is to be used, where that changed.
    fn tell(&mut self, now: UnixTime) {
        let layer = match self.state {
            ShowState::Scheduled | ShowState::Ended => None,
            ShowState::Doors => Some((Layer::Slate, self.doors_at())),
            ShowState::Live if self.silence_hold => Some((Layer::Hold, now)),
            ShowState::Live => {
                let first = self.told_layer.is_none_or(|layer| layer == Layer::Slate);
                Some((Layer::Stage, self.live_at.filter(|_| first).unwrap_or(now)))
            }
            ShowState::Hold { .. } => Some((Layer::Hold, now)),
        };
        if let Some((layer, at)) = layer.filter(|(layer, _)| self.told_layer != Some(*layer)) {
            self.told_layer = Some(layer);
            self.outputs.push_back(Output::Layer { layer, at });
        }
        let uses: Vec<(SourceId, SourceUse)> =
            self.sources.all.iter().map(|(id, source)| (*id, self.use_of(*id, source.seat))).collect();
        for (id, to) in uses {
            let source = self.sources.all.get_mut(&id).expect("just listed");
            if source.told != Some(to) {
                source.told = Some(to);
                self.outputs.push_back(Output::Use { source: id, to });
            }
        }
    }

    fn use_of(&self, source: SourceId, seat: SeatId) -> SourceUse {
        let standing = self.standing(seat);
        let on = match self.state {
            // Before the show everyone in the green room hears everyone else; listeners hear the slate.
            ShowState::Scheduled | ShowState::Doors => true,
            ShowState::Live | ShowState::Hold { .. } => standing.place == Place::OnStage,
            ShowState::Ended => false,
        };
        let audible = on && !standing.muted;
        let active = self.sources.active.get(&seat).copied();
        SourceUse { seat, active: active == Some(source), in_mix: audible && active == Some(source) }
    }
}

#[cfg(test)]
#[path = "show_tests.rs"]
pub(crate) mod tests;
