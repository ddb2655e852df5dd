//! What nobody can be asked to give back.

use std::collections::BTreeMap;

use super::{Prefix, Site};

/// Places that are kept until whoever has one is done, such as requests in progress. While half of them are free they are
/// for anybody; of the other half a site gets one only if it has fewer than are free (a dynamic threshold, as switches
/// share their buffers by: Choudhury and Hahne, 1998). So one site alone gets half of all, and however few are left, there
/// is one for a site that has none. This machine is no one site ([`Site::is_local`]). Memory: an entry for each site that
/// has a place.
#[derive(Debug)]
pub struct Shares {
    places: usize,
    taken: usize,
    sites: BTreeMap<Site, usize>,
}

impl Shares {
    /// So many places.
    pub fn new(places: usize) -> Self {
        Self { places, taken: 0, sites: BTreeMap::new() }
    }

    /// Takes a place for somebody from `prefix`, if there is one for them.
    pub fn take(&mut self, prefix: Prefix) -> bool {
        let site = prefix.site();
        let free = self.places.saturating_sub(self.taken);
        let own = self.sites.get(&site).copied().unwrap_or(0);
        let may = free > 0 && (free > self.places / 2 || own < free || site.is_local());
        if may {
            self.taken += 1;
            self.sites.insert(site, own + 1);
        }
        may
    }

    /// Gives a place back that was taken for `prefix`.
    pub fn give_back(&mut self, prefix: Prefix) {
        let site = prefix.site();
        let Some(own) = self.sites.get_mut(&site) else { return };
        *own -= 1;
        self.taken -= 1;
        if *own == 0 {
            self.sites.remove(&site);
        }
    }

    /// Places taken.
    pub fn taken(&self) -> usize {
        self.taken
    }
}
