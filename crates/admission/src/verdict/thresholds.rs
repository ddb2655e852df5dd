//! The thresholds, all of them, each with its reason.

use super::Sign;
use super::features::Feature;

/// Version of everything that decides: this table and the formulas. It is written into the ledger's opening, so it is
/// known before there is anything to judge.
pub const VERSION: u64 = 1;
/// Bins in the baseline: five minutes, long enough to be usual, short enough to follow an evening.
pub const BASELINE_BINS: usize = 30;
/// Fewest bins in it: a median of fewer is one bin's chance.
pub const BASELINE_BINS_MIN: usize = 3;
/// Bins over which capacity is remembered: five minutes after a fall the new capacity is the usual one.
pub const PEAK_BINS: usize = 30;
/// Bins over which it is remembered that we were slow: who began then is judged by what they heard until half a minute later.
pub const SLOW_BINS: usize = 5;
/// Confidence from which a verdict may be quoted without "perhaps".
pub const CONFIDENT: u64 = 8_000;

/// What must hold for a rule beside its value and count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing.
    Nothing,
    /// Corroborated while we are slow.
    OnTime,
    /// The load is flat.
    Flat,
    /// Requests have risen 30 tenths.
    Requests,
    /// Tickets asked for have risen 15 tenths; corroborated while we are slow.
    Asked,
    /// Arrivals have risen 15 tenths; corroborated while we are slow.
    Came,
    /// Sessions opened have risen 15 tenths; corroborated while we are slow.
    Opened,
    /// Playlists have risen 30 tenths; corroborated while we are slow.
    Playlists,
    /// Arrivals have risen 20 tenths, and there were 200 of them.
    Arrivals,
}

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// What is looked at.
    pub feature: Feature,
    /// What it speaks for.
    pub sign: Sign,
    /// From which value on.
    pub threshold: u64,
    /// From which count on.
    pub floor: u64,
    /// What else must hold.
    pub needs: Needs,
    /// Why it is where it is.
    pub why: &'static str,
}

const fn rule(
    feature: Feature,
    sign: Sign,
    threshold: u64,
    floor: u64,
    needs: Needs,
    why: &'static str,
) -> Rule {
    Rule { feature, sign, threshold, floor, needs, why }
}

/// The table. Counts are of 20 s, so a floor of 200 is 10 a second: below it nothing here is in danger.
pub const THRESHOLDS: [Rule; 28] = [
    rule(
        Feature::UnansweredCookies,
        Sign::L34,
        30_000,
        2_000,
        Needs::Nothing,
        "A phone on a bad line sends its SYN two or three times and answers one cookie; nobody's crowd leaves three \
         cookies unanswered for each connection made. 100 a second is what one old machine sends in passing.",
    ),
    rule(
        Feature::UnfinishedHandshakes,
        Sign::L34,
        5_000,
        1_000,
        Needs::Nothing,
        "On slow networks one handshake in five is not finished, on the worst nights one in three; those we shed are \
         not counted, and the others when they have ended.",
    ),
    rule(
        Feature::HalfOpen,
        Sign::L34,
        5_000,
        1_000,
        Needs::OnTime,
        "A handshake takes three round trips: at 2 s each bin ends with a fifth of its connections unfinished. Held \
         ones stay until the timer of 10 s, all of a bin. A step just before a bin's end looks the same for one bin, \
         so two are asked for. When we are slow, everybody's handshake is.",
    ),
    rule(
        Feature::RefusedDatagrams,
        Sign::L34,
        10_000,
        20_000,
        Needs::Nothing,
        "Twenty speakers send 20,000 datagrams in 20 s, and hardly one is refused. As many refused as taken, and more \
         than a stage sends, comes from no browser.",
    ),
    rule(
        Feature::UnusedTickets,
        Sign::L7,
        5_000,
        200,
        Needs::Asked,
        "A page uses its ticket at once; one visitor in four leaves first on a bad evening. Half unused of those beyond \
         the usual, after ten seconds' patience with each and no more than errors explain, is not visitors.",
    ),
    rule(
        Feature::LostSessions,
        Sign::L7,
        5_000,
        200,
        Needs::Opened,
        "A third of those who open a link are gone before the third part, more when the line is bad. If half of those \
         beyond the usual go, while our own loop is on time, they do not want to listen.",
    ),
    rule(
        Feature::BarePlaylists,
        Sign::L7,
        40_000,
        2_000,
        Needs::Playlists,
        "A player asks for one playlist a part; retrying on a bad line, for two or three. Four for each file got, or \
         session begun, is asking for playlists' sake.",
    ),
    rule(
        Feature::ShutReaders,
        Sign::L7,
        5_000,
        200,
        Needs::Came,
        "A page drains its socket whatever the player does, and no network shuts a window. Of those who come one in \
         twenty is a frozen phone; half of those beyond the usual are programs that hold us on purpose. Where the kernel \
         does not tell who reads, one in four starves where networks are bad, so that they must not have followed \
         either. If more stop than came, it is not those who came.",
    ),
    rule(
        Feature::UnfinishedRequests,
        Sign::L7,
        4_000,
        500,
        Needs::OnTime,
        "A request's head is one packet: it is unfinished for a round trip. Four of ten connections of two bins in \
         that state are held in it.",
    ),
    rule(
        Feature::SlowRequests,
        Sign::L7,
        4_000,
        400,
        Needs::Nothing,
        "The timer of 10 s is met by one in fifty on bad networks.",
    ),
    rule(
        Feature::ProtocolAbuse,
        Sign::L7,
        100,
        200,
        Needs::Nothing,
        "The limits lie far beyond any browser; a broken client or two in a crowd may meet them, one in a hundred not.",
    ),
    rule(
        Feature::ForgedTickets,
        Sign::L7,
        500,
        500,
        Needs::Nothing,
        "Nobody has a ticket that was never ours, except by damage; expired ones are counted apart.",
    ),
    rule(
        Feature::BadRequests,
        Sign::L7,
        5_000,
        2_000,
        Needs::Requests,
        "Half of three times the usual requests wrong is a program that tries addresses. If requests did not rise, the \
         wrong addresses may be ours.",
    ),
    rule(
        Feature::IgnoredChallenges,
        Sign::L7,
        5_000,
        400,
        Needs::Nothing,
        "Without JavaScript a page waits and asks again after the time it was told. Half of those who come again doing \
         neither is what a challenge is there to find.",
    ),
    rule(
        Feature::LostCapacity,
        Sign::Own,
        2_000,
        1,
        Needs::Nothing,
        "No load takes away the places of processes that live. A fifth, for two bins, is an edge of five.",
    ),
    rule(
        Feature::LostProcesses,
        Sign::Own,
        1,
        1,
        Needs::Nothing,
        "A process that did not report twice is dead or stuck, and either is ours.",
    ),
    rule(
        Feature::SlowDisk,
        Sign::Own,
        250_000,
        1,
        Needs::Nothing,
        "A part is written every 480 ms, however many listen; at half of that the recording falls behind.",
    ),
    rule(
        Feature::ServerErrors,
        Sign::Own,
        200,
        50,
        Needs::Flat,
        "One answer in fifty an error while no more come than usual: a bug, or something behind us is gone.",
    ),
    rule(
        Feature::BusyProcessor,
        Sign::Own,
        3_000,
        8_000,
        Needs::Flat,
        "30 points more processor than usual, and above 80 %, for the same load: it is spent on ourselves.",
    ),
    rule(
        Feature::LateLoop,
        Sign::Own,
        100_000,
        1,
        Needs::Flat,
        "Turns 100 ms late under a usual load: something blocks the loop, and nobody outside does.",
    ),
    rule(
        Feature::ForeignFingerprints,
        Sign::Doubt,
        2_500,
        200,
        Needs::Arrivals,
        "A link shared among phones moves the mix by a fifth; a quarter that was never seen is a program, or a crowd of \
         another kind than usual.",
    ),
    rule(
        Feature::ConcentratedPrefixes,
        Sign::Doubt,
        6_000,
        400,
        Needs::Arrivals,
        "Ten networks sending six of ten is a few rented machines, or one country's mobile carrier. It cannot be more \
         than a doubt.",
    ),
    rule(
        Feature::UnfamiliarPrefixes,
        Sign::Doubt,
        4_000,
        400,
        Needs::Arrivals,
        "Crowds come from networks that came before (Jung et al. 2002). 40 points fewer than usual is another public.",
    ),
    rule(
        Feature::SuddenArrivals,
        Sign::Doubt,
        50_000,
        500,
        Needs::Arrivals,
        "Crowds ramp up; five times the usual within a bin, far from the announced start, is a push message or a \
         program's start.",
    ),
    rule(
        Feature::UntakenTurns,
        Sign::Doubt,
        9_000,
        200,
        Needs::Arrivals,
        "Many leave a waiting room, but one in ten stays for their turn.",
    ),
    rule(
        Feature::Surge,
        Sign::People,
        25_000,
        200,
        Needs::Nothing,
        "Two and a half times as many as usual came and stayed: a crowd beside whatever else there is.",
    ),
    rule(
        Feature::FollowThrough,
        Sign::People,
        5_000,
        20,
        Needs::Nothing,
        "Half of those who begin must get their third part before it is called listening.",
    ),
    rule(
        Feature::Acknowledged,
        Sign::People,
        5_000,
        20,
        Needs::Nothing,
        "Half of what is due must arrive: whole, on most lines, and the half where networks are bad.",
    ),
];

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    /// [`THRESHOLDS`] as a table in Markdown.
    fn table() -> String {
        let name = |value: serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let mut text = String::from(
            "| Rule | Speaks for | From | Count from | Why |\n| --- | --- | --- | --- | --- |\n",
        );
        for rule in &THRESHOLDS {
            let feature = name(serde_json::to_value(rule.feature).unwrap());
            let sign = name(serde_json::to_value(rule.sign).unwrap());
            let Rule { threshold, floor, why, .. } = rule;
            writeln!(text, "| `{feature}` | {sign} | {threshold} | {floor} | {why} |").unwrap();
        }
        text
    }

    #[test]
    fn the_documentation_has_this_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/evidence.md");
        let page = std::fs::read_to_string(path).unwrap();
        assert!(page.contains(&table()), "docs/evidence.md should hold:\n{}", table());
    }
}
