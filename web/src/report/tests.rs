//! Pages of reports in which everything happens, and of some in which nothing does.

use std::collections::BTreeSet;

use admission::ledger::{Cause, Mark, Measure, Refused};
use admission::report::{
    Blame, Broken, ClassTime, Happened, Integrity, KeyFrom, Latest, List, Moment, OwnFault, Peak, Peaks,
    Point, Series, Span, Step, Stretch, Taken, Totals, Why,
};
use admission::verdict::{Class, Feature, Sign, THRESHOLDS};

use super::*;

/// 2026-11-22T20:00:00Z.
const START_MS: u64 = 1_795_377_600_000;

const MEASURES: [Measure; 17] = [
    Measure::LadderUp,
    Measure::LadderDown,
    Measure::LevelPinned,
    Measure::ListenersCapped,
    Measure::ChallengeOn,
    Measure::ChallengeOff,
    Measure::PrefixWeighed,
    Measure::ConnectionsCapped,
    Measure::HandshakesShed,
    Measure::SlowClosed,
    Measure::AbuseClosed,
    Measure::SessionsClosed,
    Measure::TicketsRevoked,
    Measure::BitrateLowered,
    Measure::TierSlowed,
    Measure::DelayedFeed,
    Measure::SentToCdn,
];
const CAUSES: [Cause; 10] = [
    Cause::Processor,
    Cause::Loop,
    Cause::Line,
    Cause::Files,
    Cause::Memory,
    Cause::Silence,
    Cause::Operator,
    Cause::Evidence,
    Cause::Limit,
    Cause::Relief,
];
const MARKS: [Mark; 11] = [
    Mark::Deploy,
    Mark::Restart,
    Mark::Configuration,
    Mark::ClockStep,
    Mark::DiskSlow,
    Mark::DiskSwitched,
    Mark::EdgeLost,
    Mark::EdgeBack,
    Mark::Live,
    Mark::Hold,
    Mark::Ended,
];
const CLASSES: [Class; 6] =
    [Class::Crowd, Class::L7, Class::L34, Class::SelfInflicted, Class::Mixed, Class::Insufficient];

fn at(second: u64) -> Moment {
    Moment::from_millis(START_MS - 600_000 + second * 1_000)
}

fn list<T>(items: Vec<T>) -> List<T> {
    List { items, left_out: 0 }
}

/// A report in which everything that can be said is said once.
fn eventful() -> Report {
    let point = |n: u64| Point {
        at: at(n * 10),
        bins: 1,
        arrivals: 3 * n,
        admitted: 2 * n,
        refused: n,
        waiting: 5 * n,
        listening: 1_000 + n,
        level: n % 7,
        requests: 100,
        server_errors: 0,
        capacity: 9_000,
    };
    // Nobody counted for a minute.
    let points: Vec<Point> = (0..60).chain(66..120).map(point).collect();
    let span = |n: u64| (at(n * 100), at(n * 100 + 100));
    let why =
        |feature: Feature, sign: Sign| Why { feature, sign, value: 12_300, threshold: 5_000, above: true };
    let mut reasons: Vec<Why> = THRESHOLDS.iter().map(|rule| why(rule.feature, rule.sign)).collect();
    reasons.push(why(Feature::Wary, Sign::Doubt));
    let stretch = |(n, class): (usize, &Class)| Stretch {
        from: span(n as u64).0,
        until: span(n as u64).1,
        class: *class,
        confidence_bp: if *class == Class::Insufficient { 0 } else { 7_000 + 500 * n as u64 },
        quotable: n % 2 == 1,
        reasons: reasons.clone(),
    };
    let peak = |value| Peak { value, at: Some(at(900)) };
    Report {
        version: admission::report::VERSION,
        event: "an-evening".to_owned(),
        thresholds: 1,
        doors_at: at(0),
        announced_at: at(600),
        live_at: Some(at(602)),
        late_ms: Some(2_400),
        ended_at: Some(at(1_100)),
        covers: Some(Span { from: at(0), until: at(1_200) }),
        integrity: Integrity {
            holds: false,
            key: KeyFrom::Ledger,
            lines: 119,
            head: "ab".repeat(32),
            closed: true,
            fault: Some(Broken { line: 120, offset: 34_567, what: "a <b>fault</b>".to_owned() }),
            missing_bins: 6,
            gaps: list(vec![Span { from: at(600), until: at(660) }]),
        },
        latest: Some(Latest {
            at: at(1_200),
            listening: 1_119,
            waiting: 12,
            arrivals: 357,
            admitted: 238,
            refused: 119,
            level: 2,
            capacity: 9_000,
            processes_expected: 3,
            processes_reported: 3,
            class: Class::Crowd,
            confidence_bp: 7_500,
            quotable: false,
        }),
        totals: Totals {
            bins: 114,
            arrivals: 1_234_567,
            admitted: 20_000,
            refused: 15,
            refused_by: Refused { full: 1, prefix: 2, forged: 3, expired: 4, excess: 5 },
            listening_minutes: 90_000,
            ..Totals::default()
        },
        peaks: Peaks {
            listening: peak(1_119),
            waiting: peak(595),
            arrivals: peak(357),
            requests: peak(100),
            level: peak(6),
        },
        series: Series { step_s: 10, points },
        ladder: list((0..7).map(|n| Step { from: span(n).0, until: span(n).1, level: n }).collect()),
        measures: MEASURES
            .iter()
            .enumerate()
            .map(|(n, measure)| Taken {
                measure: *measure,
                cause: CAUSES[n % CAUSES.len()],
                count: 1_000 + n as u64,
                first: at(600),
                last: at(700),
            })
            .collect(),
        marks: list(MARKS.iter().map(|mark| Happened { at: at(601), mark: *mark }).collect()),
        ours: list(
            OwnFault::ALL
                .iter()
                .map(|fault| Blame {
                    fault: *fault,
                    from: at(600),
                    until: at(620),
                    worst: 2_400,
                    total: 2,
                    under_attack: *fault == OwnFault::LateLoop,
                })
                .collect(),
        ),
        classes: CLASSES.map(|class| ClassTime { class, seconds: 100, quotable_s: 50 }).to_vec(),
        verdicts: list(CLASSES.iter().enumerate().map(stretch).collect()),
    }
}

/// One of which nothing but the opening was read.
fn empty() -> Report {
    Report {
        live_at: None,
        late_ms: None,
        ended_at: None,
        covers: None,
        integrity: Integrity {
            holds: true,
            key: KeyFrom::Publisher,
            lines: 1,
            head: "00".repeat(32),
            closed: false,
            fault: None,
            missing_bins: 0,
            gaps: List::default(),
        },
        latest: None,
        totals: Totals::default(),
        peaks: Peaks::default(),
        series: Series::default(),
        ladder: List::default(),
        measures: Vec::new(),
        marks: List::default(),
        ours: List::default(),
        classes: CLASSES.map(|class| ClassTime { class, seconds: 0, quotable_s: 0 }).to_vec(),
        verdicts: List::default(),
        ..eventful()
    }
}

fn made(report: &Report, phase: ReportPhase, form: ReportForm, language: Language) -> String {
    let page = ReportPage { title: ("An evening", "en"), report, phase };
    report_page(&page, form, language)
}

/// What stands between each `before` and the next `after`.
fn between<'a>(source: &'a str, before: &'a str, after: &'a str) -> impl Iterator<Item = &'a str> {
    source.split(before).skip(1).filter_map(move |rest| rest.split_once(after)).map(|(found, _)| found)
}

/// Whether every element that begins ends, in order.
fn is_balanced(html: &str) -> Result<(), String> {
    const EMPTY: [&str; 4] = ["meta", "link", "!doctype", "br"];
    let mut open: Vec<&str> = Vec::new();
    let html = html.split("<style>").next().unwrap().to_owned()
        + html.split_once("</style>").map_or("", |(_, rest)| rest);
    for tag in between(&html, "<", ">") {
        let name = tag.trim_start_matches('/').split([' ', '/', '\n']).next().unwrap_or_default();
        if EMPTY.contains(&name) || tag.ends_with('/') {
            continue;
        }
        if tag.starts_with('/') {
            let last = open.pop();
            if last != Some(name) {
                return Err(format!("</{name}> ends {last:?}"));
            }
        } else {
            open.push(name);
        }
    }
    if open.is_empty() { Ok(()) } else { Err(format!("{open:?} do not end")) }
}

const PHASES: [ReportPhase; 3] = [ReportPhase::Running, ReportPhase::Closing, ReportPhase::Final];
const FORMS: [ReportForm; 2] = [ReportForm::Served, ReportForm::Alone];

#[test]
fn every_page_is_whole_in_both_languages() {
    for report in [eventful(), empty()] {
        for language in Language::ALL {
            for (phase, form) in PHASES.into_iter().flat_map(|phase| FORMS.map(|form| (phase, form))) {
                let html = made(&report, phase, form, language);
                let (tag, direction) = (language.tag(), language.direction());
                assert!(html.contains(&format!("<html lang=\"{tag}\" dir=\"{direction}\">")));
                assert!(!html.contains("{{") && !html.contains("}}") && html.ends_with("</html>\n"));
                is_balanced(&html).unwrap();
                let ids: Vec<&str> = between(&html, " id=\"", "\"").collect();
                assert_eq!(
                    ids.len(),
                    ids.iter().collect::<BTreeSet<_>>().len(),
                    "ids are there once: {ids:?}"
                );
                for id in between(&html, "aria-labelledby=\"", "\"").flat_map(|ids| ids.split(' ')) {
                    assert!(ids.contains(&id), "{id} names what it labels");
                }
                assert!(!html.contains("NaN") && !html.contains("inf%"));
                // The pages' policy: nothing inline.
                for forbidden in [" style=", " onclick=", "javascript:"] {
                    assert!(!html.contains(forbidden), "{forbidden}");
                }
                assert_eq!(html.matches("<style>").count(), usize::from(form == ReportForm::Alone));
            }
            let none = no_report_page(("A <talk>", "en"), "a-talk", false, language);
            is_balanced(&none).unwrap();
            assert!(none.contains("A &lt;talk&gt;") && none.contains("data-every=\"10\""));
            assert!(no_report_page(("", "en"), "a-talk", true, language).contains("href=\"/e/a-talk?lang="));
        }
    }
}

#[test]
fn both_tables_say_the_same_and_everything_is_said() {
    let read =
        |source: &str| serde_json::from_str::<std::collections::BTreeMap<String, String>>(source).unwrap();
    let ar = read(include_str!("../../text/report.ar.json"));
    let en = read(include_str!("../../text/report.en.json"));
    assert!(ar.keys().eq(en.keys()));
    let sources = [
        include_str!("sections.rs"),
        include_str!("words.rs"),
        include_str!("plot.rs"),
        include_str!("../report.rs"),
    ];
    let families = [
        "class.", "level.", "measure.", "cause.", "mark.", "fault.", "worst.", "feature.", "series.",
        "column.", "plot.",
    ];
    for (key, words) in &en {
        let values = |text: &str| between(text, "{", "}").map(str::to_owned).collect::<BTreeSet<_>>();
        assert_eq!(values(words), values(&ar[key]), "{key} takes different values");
        assert!(!words.trim().is_empty() && !ar[key].trim().is_empty(), "{key} is empty");
        for c in words.chars().chain(ar[key].chars()) {
            assert!(
                !matches!(c, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}'),
                "{key} overrides directions"
            );
        }
        let named = sources.iter().any(|source| source.contains(&format!("\"{key}\"")));
        assert!(named || families.iter().any(|family| key.starts_with(family)), "{key} is said nowhere");
    }
    // What the keys are made from is complete: looking one up that is not there fails in `Words::get`.
    for language in Language::ALL {
        let words = Words::of(language);
        for cause in CAUSES {
            words.get(&format!("cause.{}", words::name(cause)));
        }
        let html = made(&eventful(), ReportPhase::Running, ReportForm::Served, language);
        let table = if language == Language::Ar { &ar } else { &en };
        for (key, text) in table {
            let is_listed = ["measure.", "mark.", "fault.", "feature.", "refused.", "column."]
                .iter()
                .any(|family| key.starts_with(family));
            let mut escaped = Html::default();
            escaped.text(text);
            assert!(!is_listed || html.contains(&escaped.into_string()), "{key} is not on the page");
        }
    }
}

#[test]
fn what_people_wrote_stays_text() {
    let report = eventful();
    let title = "<script>alert(1)</script> & \"T\" \u{202E}\u{2066}live";
    for (form, language) in FORMS.into_iter().flat_map(|form| Language::ALL.map(|language| (form, language)))
    {
        let page = ReportPage { title: (title, "en"), report: &report, phase: ReportPhase::Final };
        let html = report_page(&page, form, language);
        is_balanced(&html).unwrap();
        assert!(!html.contains("<script>") && !html.contains("<b>fault</b>"));
        assert!(html.contains("<bdi lang=\"en\">&lt;script&gt;alert(1)&lt;/script&gt; &amp; &quot;T&quot;"));
        let head = between(&html, "<title>", "</title>").next().unwrap();
        assert!(head.contains("&lt;script&gt;") && !head.contains('\u{202E}') && !head.contains('\u{2066}'));
        assert!(html.contains("a &lt;b&gt;fault&lt;/b&gt;"));
    }
    // Even if a slug were none.
    let report = Report { event: "a\"><script>".to_owned(), ..report };
    let html = made(&report, ReportPhase::Final, ReportForm::Served, Language::En);
    assert!(!html.contains("<script>") && is_balanced(&html).is_ok());
}

#[test]
fn sentences_say_what_the_figures_say() {
    let html = made(&eventful(), ReportPhase::Final, ReportForm::Served, Language::En);
    for said in [
        "<bdi>2.4 s</bdi> after the announced start",
        "<bdi>1,234,567</bdi>. Let in: <bdi>20,000</bdi>",
        "All listening together: <bdi>1,500.0</bdi> hours",
        "level <bdi>6</bdi> of 6 (<bdi>only the stage and the recording run</bdi>)",
        "The figures show an attack, for <bdi>1 min 40 s</bdi> in all",
        "Faults of ours: <bdi>8</bdi>",
        "For <bdi>1 min 40 s</bdi> of <bdi>19 min</bdi> there is not enough evidence",
        "Line <bdi>120</bdi>, at byte <bdi>34,567</bdi>, is damaged",
        "not known to be the publisher",
        "<time dir=\"ltr\" datetime=\"2026-11-22T20:00:02.000Z\">20:00:02 UTC</time>",
        "datetime=\"2026-11-22T20:00:00.000Z\">2026-11-22 20:00:00 UTC</time>",
        "Slowest write to disk: <bdi>12 ms</bdi> (limit <bdi>5 ms</bdi>)",
        "Listeners while some doubt remains: <bdi>12,300</bdi>",
        "Forged tickets, against connections: <bdi>123 %</bdi>",
        "by up to 2 ms (while an attack was named)",
        "<time dir=\"ltr\" datetime=\"2026-11-22T20:05:00.000Z\">20:05:00 UTC</time>",
    ] {
        assert!(html.contains(said), "{said:?} is not said");
    }
    let html = made(&eventful(), ReportPhase::Final, ReportForm::Served, Language::Ar);
    assert!(html.contains("متأخّرًا <bdi>2.4 ث</bdi>"));
    let html = made(&empty(), ReportPhase::Running, ReportForm::Served, Language::En);
    for said in [
        "has not gone live",
        "Nobody was listening",
        "Nothing in the figures shows an attack",
        "no fault of ours",
    ] {
        assert!(html.contains(said), "{said:?} is not said");
    }
    let on_time = Report { late_ms: Some(-80), ..eventful() };
    assert!(made(&on_time, ReportPhase::Final, ReportForm::Served, Language::En).contains(", on time."));
    let early = Report { late_ms: Some(-60_000), ..eventful() };
    assert!(
        made(&early, ReportPhase::Final, ReportForm::Served, Language::En).contains("1 min</bdi> before the")
    );
}

#[test]
fn a_page_asks_again_only_while_more_is_to_come() {
    for (phase, form) in PHASES.into_iter().flat_map(|phase| FORMS.map(|form| (phase, form))) {
        let html = made(&eventful(), phase, form, Language::En);
        let asks = phase != ReportPhase::Final && form == ReportForm::Served;
        assert_eq!(html.contains("http-equiv=\"refresh\" content=\"10\""), asks);
        assert_eq!(html.contains("data-every=\"10\""), asks);
        let served = form == ReportForm::Served;
        assert_eq!(html.contains("/api/events/an-evening/ledger.jsonl"), served);
        assert_eq!(html.contains("<script"), served);
        let leads = html.matches("href=").count();
        assert!(if served { leads > 5 } else { leads == 1 }, "a file leads nowhere but to its content");
    }
    for name in between(
        &made(&empty(), ReportPhase::Final, ReportForm::Served, Language::En),
        &format!("/assets/{}/", build()),
        "\"",
    ) {
        assert!(crate::asset(name).is_some(), "{name}");
    }
}

#[test]
fn plots_have_a_title_words_and_a_table() {
    let html = made(&eventful(), ReportPhase::Final, ReportForm::Served, Language::En);
    assert_eq!(html.matches("<svg class=\"chart\" role=\"img\"").count(), 4);
    assert_eq!(html.matches("<desc ").count(), 4);
    assert!(html.contains("listening: at most 1,119, at 20:09:50 UTC."));
    assert!(html.contains("A crowd: 1 min 40 s; An attack with requests: 1 min 40 s"));
    // A gap breaks a line: two runs.
    let path = between(&html, "<path class=\"line s-listening\" d=\"M", "\"").last().unwrap();
    assert_eq!(path.matches('M').count(), 1, "and one at its beginning: {path}");
    let rows = between(&html, "<details id=\"d-people\">", "</details>").next().unwrap();
    assert_eq!(rows.matches("<tr>").count(), 115);
    assert!(rows.contains("<bdi dir=\"ltr\">19:50:10</bdi></td><td class=\"number\">1,001</td>"));
    // A long event has no more points than fit.
    let mut long = eventful();
    let point = long.series.points[0];
    let points = (0..700).map(|n| Point { at: at(n * 10), ..point });
    long.series = Series { step_s: 10, points: points.collect() };
    long.covers = Some(Span { from: at(0), until: at(100_000) });
    let html = made(&long, ReportPhase::Final, ReportForm::Served, Language::En);
    let rows = between(&html, "<details id=\"d-flow\">", "</details>").next().unwrap();
    assert!(rows.matches("<tr>").count() <= 181 && rows.contains("Each row covers <bdi>1 min</bdi>"));
    assert!(html.contains("<bdi dir=\"ltr\">2026-11-22 19:50:00</bdi>"), "more than a day: with dates");
}

#[test]
fn lists_are_cut_and_say_so() {
    let mut report = eventful();
    let (calm, attack) = (report.verdicts.items[0].clone(), report.verdicts.items[1].clone());
    let many = (0..200).map(|n| Stretch { from: at(n), until: at(n + 1), ..calm.clone() });
    report.verdicts = List { items: many.chain([attack]).collect(), left_out: 5 };
    let html = made(&report, ReportPhase::Final, ReportForm::Served, Language::En);
    let table = between(&html, "<details id=\"d-verdicts\">", "</details>").next().unwrap();
    assert_eq!(table.matches("<tr>").count(), 61);
    assert!(table.contains("An attack with requests"), "what names something is kept");
    assert!(table.contains("Not shown: <bdi>146</bdi>"));
}

#[test]
fn numbers_and_times_are_written_for_people() {
    let en = Words::of(Language::En);
    for (millis, text) in [
        (0, "0 ms"),
        (350, "350 ms"),
        (1_000, "1 s"),
        (2_460, "2.4 s"),
        (59_999, "59 s"),
        (60_000, "1 min"),
        (200_000, "3 min 20 s"),
        (3_600_000, "1 h"),
        (6_150_000, "1 h 42 min"),
    ] {
        assert_eq!(en.duration(millis), text);
    }
    assert_eq!(Words::of(Language::Ar).duration(200_000), "3 د 20 ث");
    assert_eq!([0, 999, 1_000, 1_234_567].map(words::count), ["0", "999", "1,000", "1,234,567"]);
    assert_eq!(
        [0, 50, 950, 1_005, 9_500, 30_000, 123_456_700].map(words::percent),
        ["0 %", "0.5 %", "9.5 %", "10 %", "95 %", "300 %", "1,234,567 %"]
    );
}
