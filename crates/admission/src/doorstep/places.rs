//! Who is connected, and who makes room.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Prefix, Site};

/// The places of a door. All moments are counted from one that the caller chooses, and do not go back.
///
/// Who has a place either *works*, and keeps it, or *rests*: has asked for nothing yet, or for nothing more, and may have
/// to make room. Each has a *weight*, 1 for whom nothing is known of; a site weighs what those of it weigh who rest. Keys
/// are small numbers that are used again, such as a slab's. Memory: 32 bytes a connection, about a hundred and fifty more
/// while it rests, and never more connections than places.
#[derive(Debug)]
pub struct Places {
    places: usize,
    reserve: usize,
    silence: Duration,
    /// By their keys.
    guests: Vec<Option<Guest>>,
    taken: usize,
    sites: BTreeMap<Site, Counts>,
    /// Sites of those who rest, by their weight.
    by_weight: BTreeSet<(u64, Site)>,
    /// What those weigh who rest, by prefix.
    homes: BTreeMap<Prefix, u64>,
    /// Those who rest, by prefix and then by age.
    resting: BTreeSet<(Prefix, Duration, u32)>,
    /// The same by age alone.
    by_age: BTreeSet<(Duration, u32)>,
}

#[derive(Clone, Copy, Debug)]
struct Guest {
    prefix: Prefix,
    weight: u32,
    /// Whether it has ever worked.
    has_asked: bool,
    /// Since when it rests; `None` while it works.
    rests: Option<Duration>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    all: u32,
    /// Of those, the ones that rest.
    resting: u32,
    /// What they weigh.
    weight: u64,
}

/// Whether there is room for one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// There is.
    Free,
    /// If the one with this key goes.
    Instead(u32),
    /// In a moment: all places are taken, but those who rest have come just now and will have asked soon.
    Soon,
    /// Not for somebody from there, and not soon; others may fare better.
    Refused,
    /// For nobody: all places are taken by those who work.
    Full,
}

impl Places {
    /// So many places, of which the last `reserve` are for sites that have few. Who has rested for `silence` makes room
    /// for anybody; before that only for sites that weigh less.
    pub fn new(places: usize, reserve: usize, silence: Duration) -> Self {
        Self {
            places,
            reserve: reserve.min(places),
            silence,
            guests: Vec::new(),
            taken: 0,
            sites: BTreeMap::new(),
            by_weight: BTreeSet::new(),
            homes: BTreeMap::new(),
            resting: BTreeSet::new(),
            by_age: BTreeSet::new(),
        }
    }

    /// Places taken.
    pub fn taken(&self) -> usize {
        self.taken
    }

    /// Of those, the ones that rest.
    pub fn resting(&self) -> usize {
        self.resting.len()
    }

    /// Whether nobody can come in, from wherever: all places are taken, and all who have one work.
    pub fn is_full(&self) -> bool {
        self.taken >= self.places && self.resting.is_empty()
    }

    fn guest(&self, key: u32) -> Option<&Guest> {
        self.guests.get(key as usize)?.as_ref()
    }

    fn guest_mut(&mut self, key: u32) -> Option<&mut Guest> {
        self.guests.get_mut(key as usize)?.as_mut()
    }

    /// Where it comes from, if it is there.
    pub fn prefix(&self, key: u32) -> Option<Prefix> {
        self.guest(key).map(|guest| guest.prefix)
    }

    /// Connections from this site.
    pub fn of_site(&self, site: Site) -> usize {
        self.sites.get(&site).map_or(0, |counts| counts.all as usize)
    }

    /// Whether it has asked for anything since it came in.
    pub fn has_asked(&self, key: u32) -> bool {
        self.guest(key).is_some_and(|guest| guest.has_asked)
    }

    /// Whether there is room for one more from `prefix`, which would weigh `weight`. If somebody has to go for it, who asks calls [`Self::leave`]
    /// for the one, and [`Self::enter`] for the other.
    ///
    /// ```text
    /// places free                      what a newcomer finds
    /// more than the reserve            a free place
    /// no more than the reserve         a free place, if its site has fewer connections than there are free places;
    ///                                  otherwise the place of another of its site who rests
    /// none                             the place of one who rests: of the heaviest site, if that weighs more than its
    ///                                  own would weigh; or whoever rests longest, if for at least `silence`
    /// ```
    ///
    /// A crowd passes quickly, so that those at the door have all just come: it waits for itself. Where they stand for
    /// half of `silence` and longer the door is blocked, and must look at who comes next to find those who may pass.
    pub fn room(&self, prefix: Prefix, weight: u32, now: Duration) -> Room {
        let site = prefix.site();
        let free = self.places.saturating_sub(self.taken);
        if free > self.reserve || self.of_site(site) < free {
            return Room::Free;
        }
        if free > 0 {
            // The reserve is not for this site: it may renew itself, and nobody else has to go for it.
            return self
                .oldest_of(site)
                .map_or(Room::Refused, |(since, key)| self.if_silent(since, key, now));
        }
        let Some(&(most, heaviest)) = self.by_weight.last() else { return Room::Full };
        let own = self.sites.get(&site).map_or(0, |counts| counts.weight);
        if most > own + u64::from(weight) {
            return self.oldest_of(heaviest).map_or(Room::Refused, |(_, key)| Room::Instead(key));
        }
        self.by_age.first().map_or(Room::Full, |&(since, key)| {
            let room = self.if_silent(since, key, now);
            let is_new = now.saturating_sub(since) < self.silence / 2;
            if is_new { Room::Soon } else { room }
        })
    }

    /// Whether there is room for one more of whom it is not known yet where it comes from, such as a connection of a
    /// proxy that will say so: a free place, or that of one who rests, of the heaviest site; of whoever rests longest, if no
    /// site weighs more than one of whom nothing is known. Once it is known, who asks calls [`Self::leave`] and
    /// [`Self::room`].
    pub fn room_for_any(&self) -> Room {
        if self.taken < self.places {
            return Room::Free;
        }
        let heaviest = self.by_weight.last().filter(|&&(weight, _)| weight > 1);
        let instead = match heaviest {
            Some(&(_, site)) => self.oldest_of(site).map(|(_, key)| key),
            None => self.by_age.first().map(|&(_, key)| key),
        };
        instead.map_or(Room::Full, Room::Instead)
    }

    /// Whether this one, which rests or begins to work, may go on working: while half of all places are not worked at
    /// anybody may, and beyond that only who is of a site where fewer work than could still (as of [`super::Shares`]). So
    /// one site alone gets half of the door, however long it stays, and those who rest count for nothing. This machine is
    /// no one site.
    pub fn may_work(&self, key: u32) -> bool {
        let Some(guest) = self.guest(key) else { return false };
        let site = guest.prefix.site();
        // Itself not among them.
        let itself = usize::from(guest.rests.is_none());
        let working = (self.taken - self.resting.len()).saturating_sub(itself);
        let left = self.places.saturating_sub(working);
        let of_site = self.sites.get(&site).map_or(0, |counts| (counts.all - counts.resting) as usize);
        let own = of_site.saturating_sub(itself);
        left > self.places / 2 || own < left || site.is_local()
    }

    /// Whether it has rested for so long that it makes room for anybody.
    pub fn is_silent(&self, key: u32, now: Duration) -> bool {
        let since = self.guest(key).and_then(|guest| guest.rests);
        since.is_some_and(|since| now.saturating_sub(since) >= self.silence)
    }

    fn if_silent(&self, since: Duration, key: u32, now: Duration) -> Room {
        if now.saturating_sub(since) >= self.silence { Room::Instead(key) } else { Room::Refused }
    }

    /// Of the heaviest home of this site, the one who has rested longest.
    fn oldest_of(&self, site: Site) -> Option<(Duration, u32)> {
        // A site has 256 homes at most.
        let homes = self.homes.range(site.homes());
        let (&heaviest, _) = homes.max_by_key(|&(_, &weight)| weight)?;
        let from = (heaviest, Duration::ZERO, 0);
        let &(_, since, key) = self.resting.range(from..).next()?;
        Some((since, key))
    }

    /// Somebody comes in, and rests at first. A key that is in use changes hands.
    pub fn enter(&mut self, key: u32, prefix: Prefix, weight: u32, now: Duration) {
        self.leave(key);
        let at = key as usize;
        if self.guests.len() <= at {
            self.guests.resize(at + 1, None);
        }
        self.guests[at] = Some(Guest { prefix, weight: weight.max(1), has_asked: false, rests: None });
        self.taken += 1;
        self.sites.entry(prefix.site()).or_default().all += 1;
        self.rest(key, now);
    }

    /// From now on it asks for nothing; or it has come a step further without asking, and its time begins anew.
    pub fn rest(&mut self, key: u32, now: Duration) {
        self.rise(key);
        let Some(guest) = self.guest_mut(key) else { return };
        guest.rests = Some(now);
        let (prefix, weight) = (guest.prefix, u64::from(guest.weight));
        self.resting.insert((prefix, now, key));
        self.by_age.insert((now, key));
        *self.homes.entry(prefix).or_default() += weight;
        self.weigh(prefix.site(), |counts| {
            counts.resting += 1;
            counts.weight += weight;
        });
    }

    /// From now on it keeps its place.
    pub fn work(&mut self, key: u32) {
        self.rise(key);
        if let Some(guest) = self.guest_mut(key) {
            guest.has_asked = true;
        }
    }

    /// It rests no more.
    fn rise(&mut self, key: u32) {
        let Some(guest) = self.guest_mut(key) else { return };
        let Some(since) = guest.rests.take() else { return };
        let (prefix, weight) = (guest.prefix, u64::from(guest.weight));
        self.resting.remove(&(prefix, since, key));
        self.by_age.remove(&(since, key));
        if let Some(sum) = self.homes.get_mut(&prefix) {
            *sum -= weight;
            if *sum == 0 {
                self.homes.remove(&prefix);
            }
        }
        self.weigh(prefix.site(), |counts| {
            counts.resting -= 1;
            counts.weight -= weight;
        });
    }

    /// It is gone. Nothing happens if it was not there.
    pub fn leave(&mut self, key: u32) {
        self.rise(key);
        let Some(guest) = self.guests.get_mut(key as usize).and_then(Option::take) else { return };
        self.taken -= 1;
        let site = guest.prefix.site();
        if let Some(counts) = self.sites.get_mut(&site) {
            counts.all -= 1;
            if counts.all == 0 {
                self.sites.remove(&site);
            }
        }
    }

    /// Whether nothing is left of whoever was there.
    #[cfg(test)]
    pub(super) fn remembers_nobody(&self) -> bool {
        let indices = self.by_weight.is_empty() && self.resting.is_empty() && self.by_age.is_empty();
        indices
            && self.guests.iter().all(Option::is_none)
            && self.taken == 0
            && self.sites.is_empty()
            && self.homes.is_empty()
    }

    /// Changes what a site weighs who rests there.
    fn weigh(&mut self, site: Site, change: impl FnOnce(&mut Counts)) {
        let Some(counts) = self.sites.get_mut(&site) else { return };
        let before = counts.weight;
        change(counts);
        if before > 0 {
            self.by_weight.remove(&(before, site));
        }
        if counts.weight > 0 {
            self.by_weight.insert((counts.weight, site));
        }
    }
}
