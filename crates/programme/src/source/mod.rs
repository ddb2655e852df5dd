//! One speaker's connection: packets in, a levelled frame every tick out.

mod arrivals;
#[cfg(test)]
mod drift;
mod intake;
mod playout;

use intake::{Bounds, Intake};
use playout::Playout;

use crate::codec::OpusDecoder;
use crate::level::{Leveller, SILENCE_DB, power};
use crate::mix::{Fader, Share};
use crate::{Frame, Hears, Room, SILENT_FRAME, SourceKind, SourceRole, SourceStats, Speaks};

const MS: i64 = 48;

pub(crate) struct Source {
    intake: Intake,
    playout: Playout,
    leveller: Leveller,
    role: SourceRole,
    /// Into each room, in the order of [`Room`].
    faders: [Fader; 2],
    /// What it contributes to each room in this frame, if anything.
    parts: [Frame; 2],
    open: [bool; 2],
    share: Share,
    #[cfg(test)]
    last: Frame,
}

impl Source {
    pub(crate) fn new(kind: SourceKind, decoder: Box<dyn OpusDecoder>) -> Self {
        // Delays aimed at count from a packet's arrival to its last sample: 20 ms of them are the packet itself.
        let bounds = match kind {
            SourceKind::Rtp => Bounds { delay_max: 180 * MS, waiting_max: 1_000 * MS, packets_max: 200 },
            SourceKind::Ogg => Bounds { delay_max: 2_480 * MS, waiting_max: 8_000 * MS, packets_max: 1_600 },
        };
        Self {
            intake: Intake::new(kind, bounds),
            playout: Playout::new(decoder),
            leveller: Leveller::new(),
            role: SourceRole::default(),
            faders: [Fader::closed(); 2],
            parts: [SILENT_FRAME; 2],
            open: [false; 2],
            share: Share::new(),
            #[cfg(test)]
            last: SILENT_FRAME,
        }
    }

    pub(crate) fn role(&self) -> SourceRole {
        self.role
    }

    pub(crate) fn set_role(&mut self, role: SourceRole) {
        self.role = role;
        self.faders[Room::Stage as usize].set(role.speaks == Speaks::Stage);
        self.faders[Room::Green as usize].set(role.speaks == Speaks::GreenRoom);
    }

    /// The room it listens to.
    pub(crate) fn hears(&self) -> Option<Room> {
        match self.role.hears {
            Hears::Nothing => None,
            Hears::Stage => Some(Room::Stage),
            Hears::GreenRoom => Some(Room::Green),
        }
    }

    pub(crate) fn push_rtp(&mut self, sequence: u16, timestamp: u32, payload: &[u8], arrival: i64) {
        self.intake.push_rtp(sequence, timestamp, payload, arrival);
    }

    pub(crate) fn push_ogg(&mut self, timestamp: u64, payload: &[u8], arrival: i64) {
        self.intake.push_ogg(timestamp, payload, arrival);
    }

    pub(crate) fn backlog(&self) -> u64 {
        u64::try_from(self.intake.backlog()).unwrap_or(0)
    }

    /// Makes the frame that ends at `due` and its part in each room.
    pub(crate) fn pull(&mut self, due: i64) {
        let mut frame = SILENT_FRAME;
        self.playout.pull(&mut self.intake, due, !self.leveller.voice(), &mut frame);
        self.leveller.run(&mut frame);
        #[cfg(test)]
        {
            self.last = frame;
        }
        for ((fader, part), open) in self.faders.iter_mut().zip(&mut self.parts).zip(&mut self.open) {
            *open = !fader.is_closed();
            if *open {
                fader.run(&frame, part);
            }
        }
    }

    #[cfg(test)]
    fn last_frame(&self) -> &Frame {
        &self.last
    }

    /// What it contributes to a room in this frame.
    pub(crate) fn part(&self, room: Room) -> Option<&Frame> {
        self.open[room as usize].then(|| &self.parts[room as usize])
    }

    /// Its power on stage in this frame, for the share it gets of the programme.
    pub(crate) fn push_share(&mut self) -> f32 {
        self.share.push(power(&self.parts[Room::Stage as usize]))
    }

    pub(crate) fn add_share(&mut self, total: f32, mix: &mut Frame) {
        self.share.add(&self.parts[Room::Stage as usize], total, mix);
    }

    pub(crate) fn voice(&self) -> bool {
        self.leveller.voice()
    }

    /// Whether it has been brought to level.
    pub(crate) fn settled(&self) -> bool {
        self.leveller.settled()
    }

    pub(crate) fn level_dbfs(&self) -> f32 {
        self.leveller.level_dbfs()
    }

    pub(crate) fn stats(&self) -> SourceStats {
        let (taken, played) = (self.intake.counts, self.playout.counts);
        let milliseconds = |samples: i64| samples as f32 / MS as f32;
        SourceStats {
            packets: taken.packets,
            lost: played.lost,
            late: taken.late,
            duplicate: taken.duplicate,
            invalid: taken.invalid + played.broken,
            fec_used: played.fec_used,
            concealed_ms: played.concealed / MS as u64,
            resyncs: taken.resyncs + played.cuts,
            target_ms: milliseconds(self.playout.target()),
            delay_ms: milliseconds(self.playout.delay()),
            drift_ppm: (self.playout.drift() * 1e6) as f32,
            level_dbfs: self.leveller.level_dbfs().max(SILENCE_DB),
            loudness_lufs: self.leveller.loudness_lufs(),
            gain_db: self.leveller.gain_db(),
            voice: self.leveller.voice(),
        }
    }
}
