//! From features to a class.

use std::collections::VecDeque;

use super::features::{Baseline, Feature, View, WINDOW};
use super::thresholds::{Needs, PEAK_BINS, Rule, SLOW_BINS, THRESHOLDS};
use super::{Class, Direction, Reason, Sign, Verdict};
use crate::ledger::{Bin, BinStart, Mark, Opening};

const CONFIDENCE_MAX: u64 = 9_500;
const CONFIDENCE_FIRST: u64 = 7_000;

/// Judges one bin after another.
#[derive(Clone, Debug)]
pub struct Judge {
    opening: Opening,
    /// The oldest first.
    window: VecDeque<Bin>,
    baseline: Baseline,
    /// Capacity of the last bins.
    capacity: VecDeque<u64>,
    /// How late the loop was in the last bins.
    late: VecDeque<u64>,
    /// Calm verdicts in unbroken line, in this window.
    calm: usize,
    wary: Option<Wary>,
    /// Most of those who came beyond what is usual, in unsettled bins and the two after each, that may still listen.
    unproven: u64,
    last: Option<(Class, BinStart)>,
}

/// Judges all bins of a ledger: one verdict a bin.
pub fn judge<'a>(opening: &Opening, bins: impl IntoIterator<Item = &'a Bin>) -> Vec<Verdict> {
    let mut judge = Judge::new(opening.clone());
    bins.into_iter().map(|bin| judge.step(bin)).collect()
}

impl Judge {
    /// For the ledger that `opening` opens.
    pub fn new(opening: Opening) -> Self {
        Self {
            opening,
            window: VecDeque::with_capacity(WINDOW),
            baseline: Baseline::default(),
            capacity: VecDeque::with_capacity(PEAK_BINS),
            late: VecDeque::with_capacity(SLOW_BINS),
            calm: 0,
            wary: None,
            unproven: 0,
            last: None,
        }
    }

    /// Judges the next bin, which must be later than those before.
    pub fn step(&mut self, bin: &Bin) -> Verdict {
        if self.window.back().is_some_and(|last| last.start().next() != bin.start()) {
            self.window.clear();
            self.calm = 0;
        }
        if self.window.len() == WINDOW {
            self.window.pop_front();
        }
        self.window.push_back(bin.clone());
        remember(&mut self.capacity, PEAK_BINS, bin.counts().own.capacity);
        remember(&mut self.late, SLOW_BINS, bin.counts().own.loop_late_us);

        let window: Vec<&Bin> = self.window.iter().rev().collect();
        let view = View {
            opening: &self.opening,
            window: &window,
            baseline: &self.baseline,
            peak: self.capacity.iter().copied().max().unwrap_or(0),
            late_us: self.late.iter().copied().max().unwrap_or(0),
        };
        let found = Findings::of(&view);
        let listeners = view.last(|c| c.audio.listeners);
        self.wary = Wary::step(self.wary, found.unsettled, &view, &mut self.unproven);
        let class = found.class(&view);
        let confidence_bp = found.confidence(class, &view, self.wary.is_some());
        let mut reasons = found.reasons(class);
        if let Some(wary) = self.wary {
            let threshold = wary.bound();
            let direction = if listeners >= threshold { Direction::Above } else { Direction::Below };
            let (feature, sign) = (Feature::Wary, Sign::Doubt);
            reasons.push(Reason { feature, sign, value: listeners, threshold, direction });
        }
        // What is doubtful from the first minute is usual, or nothing ever were.
        let is_settled = self.wary.is_none() || (!self.baseline.is_there() && !view.arrivals_are_rising());
        let is_calm = matches!(class, Class::Crowd | Class::Insufficient) && is_settled;
        self.calm = if is_calm { self.calm + 1 } else { 0 };
        if self.calm >= WINDOW
            && let Some(oldest) = self.window.front()
        {
            self.baseline.push(oldest.clone());
        }
        let since_ms = match self.last {
            Some((before, since)) if before == class => since,
            _ => bin.start(),
        };
        self.last = Some((class, since_ms));
        Verdict { at_ms: bin.start(), class, confidence_bp, since_ms, reasons }
    }
}

/// Puts `value` behind the last `bins - 1` ones.
fn remember(values: &mut VecDeque<u64>, bins: usize, value: u64) {
    if values.len() == bins {
        values.pop_front();
    }
    values.push_back(value);
}

/// While some of those who listen may be machines.
#[derive(Clone, Copy, Debug)]
struct Wary {
    /// Listeners before the first unsettled bin.
    before: u64,
    /// Bins since the last unsettled one.
    settled: usize,
}

impl Wary {
    /// Until how many listeners one stays wary.
    fn bound(&self) -> u64 {
        self.before.saturating_add(self.before / 8).saturating_add(50)
    }

    fn step(wary: Option<Self>, unsettled: bool, view: &View<'_>, unproven: &mut u64) -> Option<Self> {
        let listeners = view.last(|c| c.audio.listeners);
        // They are no more than all who listen now, and are not forgotten when a wave is over.
        let add = |unproven: u64, bins: usize| unproven.saturating_add(view.unusual_followers(bins));
        let wary = match wary {
            None if !unsettled => {
                *unproven = (*unproven).min(listeners);
                return None;
            }
            None => {
                *unproven = add(*unproven, WINDOW).min(listeners);
                Self { before: view.oldest(|c| c.audio.listeners), settled: 0 }
            }
            Some(Self { before, settled }) => {
                // A wave that began in doubt is in doubt until it is over.
                let settled =
                    if unsettled || view.arrivals_are_rising() { 0 } else { settled.saturating_add(1) };
                let more = if settled < WINDOW { add(*unproven, 1) } else { *unproven };
                *unproven = more.min(listeners);
                Self { before, settled }
            }
        };
        let few = listeners <= wary.bound() && *unproven <= (listeners / 8).saturating_add(50);
        (wary.settled == 0 || !few).then_some(wary)
    }
}

/// A rule that fires, and the value with which it does.
type Fired = (&'static Rule, u64);

/// What the rules found.
struct Findings {
    fired: Vec<Fired>,
    /// `follow_through` and `acknowledged` where they count.
    people: Vec<Fired>,
    impaired: bool,
    /// A doubt; half a doubt, or no way to tell, while arrivals are rising.
    unsettled: bool,
}

impl Findings {
    fn of(view: &View<'_>) -> Self {
        let (impaired, slow) = (view.is_impaired(), view.is_slow());
        let (mut fired, mut people) = (Vec::new(), Vec::new());
        for rule in &THRESHOLDS {
            if matches!(rule.feature, Feature::FollowThrough | Feature::Acknowledged) {
                let measured = view.measure(rule.feature).filter(|measured| measured.count >= rule.floor);
                people.extend(measured.map(|measured| (rule, measured.value)));
            } else {
                fired.extend(view.fires(rule).map(|value| (rule, value)));
            }
        }
        let doubts = fired.iter().filter(|(rule, _)| rule.sign == Sign::Doubt).count();
        let corroborated = doubts >= 3 || fired.iter().any(|(rule, _)| corroborates(rule.feature));
        let ambiguous = |rule: &Rule| {
            matches!(
                rule.needs,
                Needs::OnTime | Needs::Asked | Needs::Came | Needs::Opened | Needs::Playlists
            )
        };
        fired.retain(|(rule, _)| !slow || corroborated || !ambiguous(rule));
        let shut = fired.iter().any(|(rule, _)| rule.feature == Feature::ShutReaders);
        fired.retain(|(rule, _)| !(shut && rule.feature == Feature::Surge));
        // What an attack does to us is not our own fault, unless it is more than load can do.
        let attacked = fired.iter().any(|(rule, _)| matches!(rule.sign, Sign::L7 | Sign::L34));
        fired.retain(|(rule, _)| !(attacked && rule.needs == Needs::Flat));
        let looked_at_closer = || {
            !view.baseline.is_there()
                || view.measure(Feature::ForeignFingerprints).is_none()
                || THRESHOLDS.iter().any(|rule| rule.sign == Sign::Doubt && view.half_fires(rule))
        };
        let unsettled = doubts > 0 || view.arrivals_are_rising() && looked_at_closer();
        Self { fired, people, impaired, unsettled }
    }

    fn count(&self, sign: Sign) -> u64 {
        self.fired.iter().filter(|(rule, _)| rule.sign == sign).count() as u64
    }

    fn doubts(&self) -> u64 {
        self.count(Sign::Doubt)
    }

    fn surges(&self) -> bool {
        self.count(Sign::People) > 0
    }

    /// The signs that are there.
    fn signs(&self) -> Vec<Sign> {
        [Sign::L34, Sign::L7, Sign::Own].into_iter().filter(|sign| self.count(*sign) > 0).collect()
    }

    fn class(&self, view: &View<'_>) -> Class {
        match self.signs()[..] {
            [] => self.class_without_sign(view),
            [_] if self.surges() => Class::Mixed,
            [Sign::L34] => Class::L34,
            [Sign::L7] => Class::L7,
            [_] => Class::SelfInflicted,
            [..] => Class::Mixed,
        }
    }

    fn class_without_sign(&self, view: &View<'_>) -> Class {
        let few = view.last(|c| c.audio.listeners) < 20 && view.s2(|c| c.admission.arrivals) < 50;
        let low = self.people.iter().any(|(rule, value)| *value < rule.threshold);
        let low_by_them = low && (!self.impaired || self.doubts() > 0);
        if few || self.doubts() >= 2 || self.people.is_empty() || low_by_them {
            Class::Insufficient
        } else {
            Class::Crowd
        }
    }

    fn confidence(&self, class: Class, view: &View<'_>, wary: bool) -> u64 {
        match class {
            Class::Insufficient => 0,
            Class::Crowd => self.confidence_in_crowd(view, wary),
            Class::L7 => self.confidence_in(Sign::L7, view),
            Class::L34 => self.confidence_in(Sign::L34, view),
            Class::SelfInflicted => self.confidence_in(Sign::Own, view),
            Class::Mixed => {
                let least = self.signs().into_iter().map(|sign| self.confidence_in(sign, view)).min();
                let surge = if self.surges() { CONFIDENCE_FIRST } else { CONFIDENCE_MAX };
                least.unwrap_or(0).min(surge)
            }
        }
    }

    fn confidence_in(&self, sign: Sign, view: &View<'_>) -> u64 {
        let more = match sign {
            Sign::Own if ours_happened(view) => 500,
            Sign::Own => 0,
            _ => 500 * self.doubts(),
        };
        (CONFIDENCE_FIRST + 1_000 * self.count(sign).saturating_sub(1) + more).min(CONFIDENCE_MAX)
    }

    fn confidence_in_crowd(&self, view: &View<'_>, wary: bool) -> u64 {
        let unproven = view.last(|c| c.admission.waiting) > view.last(|c| c.audio.listeners)
            && view.s3(|c| c.audio.opened) < 20;
        let less =
            [(wary, 2_000), (!view.baseline.is_there(), 2_000), (self.impaired, 1_000), (unproven, 2_000)];
        let less: u64 = less.iter().filter(|(holds, _)| *holds).map(|(_, less)| less).sum();
        CONFIDENCE_MAX.saturating_sub(less)
    }

    fn reasons(&self, class: Class) -> Vec<Reason> {
        let signed = !matches!(class, Class::Crowd | Class::Insufficient);
        let reason = |(rule, value): &Fired| Reason {
            feature: rule.feature,
            sign: rule.sign,
            value: *value,
            threshold: rule.threshold,
            direction: if *value >= rule.threshold { Direction::Above } else { Direction::Below },
        };
        let fired = self.fired.iter().filter(|(rule, _)| signed || rule.sign == Sign::Doubt);
        let people = self.people.iter().filter(|_| !signed);
        fired.chain(people).map(reason).collect()
    }
}

fn corroborates(feature: Feature) -> bool {
    matches!(feature, Feature::IgnoredChallenges | Feature::ForgedTickets | Feature::ProtocolAbuse)
}

fn ours_happened(view: &View<'_>) -> bool {
    let ours = |mark: Mark| {
        matches!(
            mark,
            Mark::Deploy
                | Mark::Restart
                | Mark::Configuration
                | Mark::DiskSlow
                | Mark::DiskSwitched
                | Mark::EdgeLost
        )
    };
    view.window.iter().take(2).any(|bin| bin.marks().iter().any(|marked| ours(marked.mark)))
}
