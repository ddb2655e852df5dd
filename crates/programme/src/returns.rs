//! What speakers hear: for each seat that speaks, its room without itself; for all who only listen to a room, one
//! packet.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::codec::{OpusEncoder, OpusLibrary, OpusSettings};
use crate::engine::add_part;
use crate::limiter::Guard;
use crate::source::Source;
use crate::{Frame, Room, SILENT_FRAME, SourceId, mix};

/// Who a mix is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Audience {
    /// Everybody who listens to this room without speaking in it.
    Shared(Room),
    /// One seat, which speaks in this room.
    Seat(u16, Room),
}

struct Feed {
    encoder: Box<dyn OpusEncoder>,
    guard: Guard,
}

pub(crate) struct Returns {
    library: OpusLibrary,
    feeds: BTreeMap<Audience, Feed>,
}

impl Returns {
    pub(crate) fn new(library: OpusLibrary) -> Self {
        Self { library, feeds: BTreeMap::new() }
    }

    pub(crate) fn make(
        &mut self,
        sources: &BTreeMap<SourceId, Source>,
        leaving: &[Source],
    ) -> Vec<(SourceId, Bytes)> {
        let mut wanted: BTreeMap<Audience, Option<Bytes>> = BTreeMap::new();
        let listeners: Vec<(SourceId, Audience)> = sources
            .iter()
            .filter_map(|(id, source)| Some((*id, source.role().seat, source.hears()?)))
            .map(|(id, seat, room)| {
                // A seat that is just fading in or out still speaks.
                let speaks = sources
                    .values()
                    .chain(leaving)
                    .any(|other| other.role().seat == seat && other.part(room).is_some());
                (id, if speaks { Audience::Seat(seat, room) } else { Audience::Shared(room) })
            })
            .collect();
        for (_, audience) in &listeners {
            wanted.insert(*audience, None);
        }
        self.feeds.retain(|audience, _| wanted.contains_key(audience));

        let mut rooms = [None, None];
        for (audience, packet) in &mut wanted {
            let (Audience::Shared(room) | Audience::Seat(_, room)) = *audience;
            let all = rooms[room as usize].get_or_insert_with(|| {
                let mut all = SILENT_FRAME;
                sources.values().chain(leaving).for_each(|source| add_part(source.part(room), &mut all));
                all
            });
            let mut frame: Frame = match *audience {
                Audience::Shared(_) => *all,
                Audience::Seat(seat, _) => {
                    let mut own = SILENT_FRAME;
                    let mine = sources.values().chain(leaving).filter(|source| source.role().seat == seat);
                    mine.for_each(|source| add_part(source.part(room), &mut own));
                    mix::minus(all, &own)
                }
            };
            *packet = self.encode(*audience, &mut frame);
        }
        listeners
            .into_iter()
            .filter_map(|(id, audience)| Some((id, wanted.get(&audience)?.clone()?)))
            .collect()
    }

    /// `None` if the encoder refuses: the listener's own concealment is as good as anything that could be sent.
    fn encode(&mut self, audience: Audience, frame: &mut Frame) -> Option<Bytes> {
        let feed = match self.feeds.entry(audience) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => {
                let encoder = self.library.encoder(OpusSettings::RETURN).ok()?;
                entry.insert(Feed { encoder, guard: Guard::new() })
            }
        };
        feed.guard.run(frame);
        feed.encoder.encode(frame).ok()
    }
}
