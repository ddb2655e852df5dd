//! The ladder of the cell: what the edges report goes in, what is in force comes out, once a second.

use std::collections::BTreeMap;

use admission::ladder::{Decision, Ladder, Level, Measures, Orders, Report};
use model::BootTime;

/// The most that a cap can be.
pub(crate) const CAP_MAX: u64 = 100_000_000;

/// The ladder with the operator's orders. It reads no clock.
#[derive(Debug)]
pub(crate) struct Steering {
    ladder: Ladder,
    orders: Orders,
    /// Whether what was in force at the edges, before this control began, was gone on from.
    has_taken_over: bool,
    decision: Decision,
}

/// What is known of an edge's own ladder.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct AtEdge {
    /// What it reported, and when.
    pub(crate) report: Report,
    /// What is in force there.
    pub(crate) level: Level,
    /// Likewise.
    pub(crate) measures: Measures,
}

impl Steering {
    /// At L0, with orders as they were noted.
    pub(crate) fn new(orders: Orders) -> Self {
        let mut ladder = Ladder::new();
        let decision = ladder.observe(BootTime::default(), &[], &orders);
        Self { ladder, orders, has_taken_over: false, decision }
    }

    /// What the operator wants.
    pub(crate) fn orders(&self) -> Orders {
        self.orders
    }

    /// From now on the operator wants this. It is decided anew with the next look.
    pub(crate) fn set_orders(&mut self, orders: Orders) {
        self.orders = orders;
    }

    /// Whether evidence asks for newcomers to be challenged, from the next look on.
    pub(crate) fn set_evidence(&mut self, evidence: bool) {
        self.orders.evidence = evidence;
    }

    /// What is in force.
    pub(crate) fn decision(&self) -> &Decision {
        &self.decision
    }

    /// Whether any edge was heard. Until then a control that begins anew knows nothing, and has nothing to tell.
    pub(crate) fn has_heard(&self) -> bool {
        self.has_taken_over
    }

    /// Looks at the edges, by name, and decides.
    pub(crate) fn observe(&mut self, now: BootTime, edges: &BTreeMap<&str, AtEdge>) -> &Decision {
        let alive = || edges.values().filter(|edge| edge.report.is_alive());
        if !self.has_taken_over && alive().next().is_some() {
            self.has_taken_over = true;
            let level = alive().map(|edge| edge.level).max().unwrap_or_default();
            let measures = alive().fold(Measures::default(), |all, edge| all.stricter(edge.measures));
            self.ladder.take_over(now, level, &measures);
        }
        let reports: Vec<Report> = edges.values().map(|edge| edge.report).collect();
        self.decision = self.ladder.observe(now, &reports, &self.orders);
        &self.decision
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use admission::ladder::{Admission, Load, Used};
    use std::time::Duration;

    fn at(second: u64) -> BootTime {
        BootTime::from_uptime(Duration::from_secs(1_000 + second))
    }

    fn edge(listeners: u64, level: Level) -> AtEdge {
        let load = Load { listeners: Used::new(listeners, 100), ..Load::default() };
        let report = Report { age: Duration::ZERO, load };
        AtEdge { report, level, measures: Measures::default() }
    }

    #[test]
    fn a_control_that_begins_anew_goes_on_from_what_its_edges_do() {
        let mut steering = Steering::new(Orders::default());
        assert_eq!(steering.observe(at(0), &BTreeMap::new()).level, Level::L0);
        let edges = [("edge-0", edge(10, Level::L1)), ("edge-1", edge(10, Level::L3))].into();
        assert_eq!(steering.observe(at(1), &edges).level, Level::L3);
        // Once: from then on it goes down, though the edges follow it only a second later.
        let last = (2..600).map(|second| steering.observe(at(second), &edges).level).last();
        assert_eq!(last, Some(Level::L0));
    }

    #[test]
    fn orders_count_from_the_next_look() {
        let mut steering = Steering::new(Orders::default());
        let edges = [("edge-0", edge(50, Level::L0))].into();
        assert_eq!(steering.observe(at(0), &edges).measures.admission, Admission::Open);
        steering.set_orders(Orders { pin: Some(Level::L3), cap: Some(50), ..Orders::default() });
        let decision = *steering.observe(at(1), &edges);
        assert_eq!((decision.level, decision.would), (Level::L3, Level::L0));
        assert_eq!(decision.measures.admission, Admission::Waiting, "the cap is reached");
        assert_eq!(steering.decision(), &decision);
    }
}
