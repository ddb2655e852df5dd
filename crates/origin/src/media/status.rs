//! What origin tells control and the edges: topic `status`, once a second and at each change.

use std::sync::Arc;

use backend::bus::Bus;
use backend::wire::{self, EventStatus, OriginStatus, SeatStatus};
use model::{ShowState, UnixTime};

use crate::directory::{Directory, View};

/// Most events in one message.
const EVENTS_MAX: usize = 512;

/// Publishes the status.
pub(super) struct Reporter {
    bus: Arc<dyn Bus>,
    sequence: u64,
}

impl Reporter {
    pub(super) fn new(bus: Arc<dyn Bus>) -> Self {
        Self { bus, sequence: 0 }
    }

    pub(super) fn publish(&mut self, directory: &Directory, at: UnixTime) {
        self.sequence += 1;
        let mut views = directory.views();
        // Those with a programme first; then the ones that start soonest.
        views.sort_by_key(|view| (view.anchor.is_none(), view.ended_at.is_some(), view.event.starts_at));
        views.truncate(EVENTS_MAX);
        let events = views.iter().map(|view| event_status(view)).collect();
        let status = OriginStatus { pid: std::process::id(), at, events };
        self.bus.publish("status", self.sequence, wire::encode(&status));
    }
}

/// The end is told once the last part is out, half a second after the stage has heard of it: who hears of it has, or
/// can have, everything.
fn state(view: &View) -> &ShowState {
    match view.state {
        ShowState::Ended if !view.closed && view.live_at.is_some() => &ShowState::Live,
        ShowState::Ended if !view.closed => &ShowState::Doors,
        _ => &view.state,
    }
}

fn event_status(view: &View) -> EventStatus {
    let alarms = view.alarms.iter().map(|alarm| match alarm {
        stage::Alarm::DeadAir => wire::Alarm::DeadAir,
        stage::Alarm::LateStart => wire::Alarm::LateStart,
        stage::Alarm::ClockStep => wire::Alarm::ClockStep,
        stage::Alarm::Recorder => wire::Alarm::Recorder,
    });
    let seats = view.seats.iter().map(|row| SeatStatus {
        seat: row.seat.id.0,
        sources: u8::try_from(row.seat.sources).unwrap_or(u8::MAX),
        connected: row.seat.connected,
        on_stage: row.seat.place == stage::Place::OnStage,
        muted: row.seat.muted,
    });
    EventStatus {
        event: view.event.slug.clone(),
        revision: view.event.revision,
        state: state(view).into(),
        epoch: view.epoch.map(|epoch| epoch.0),
        anchor: view.anchor.map(Into::into),
        live_at: view.live_at,
        ended_at: view.ended_at.filter(|_| view.closed),
        newest_part: view.newest,
        recorded_through: view.recorded_through,
        alarms: alarms.collect(),
        late: view.late(),
        seats: seats.collect(),
    }
}
