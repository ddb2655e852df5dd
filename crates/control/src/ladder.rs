//! The ladder's levels in words, as a listener reads them.

use admission::ladder::{Admission, Level, Measures};
use admission::ticket::Tier;

/// What is in force, in Arabic and English. Of a level only what is done is said: a level may stand because something
/// is scarce for which it has no measure.
pub(crate) fn sentence(level: Level, measures: &Measures) -> [&'static str; 2] {
    let is_slower = measures.newcomers_tier > Tier::ONE || measures.newcomers_to_cdn;
    // An operator's cap makes newcomers wait at any level.
    let level = if measures.admission == Admission::Waiting { level.max(Level::L4) } else { level };
    match level {
        Level::L2 if !is_slower && measures.newcomers_cap.is_some() => [
            "الحضور كثير جدًا، فالصوت أبسط قليلًا للقادمين الجدد.",
            "A great many people are listening. For those who join now the sound is a little simpler.",
        ],
        Level::L3 if measures.everyones_cap.is_none() => sentence(Level::L2, measures),
        Level::L2 if !is_slower => sentence(Level::L1, measures),
        Level::L0 => ["كل شيء يعمل كما ينبغي.", "Everything is running as it should."],
        Level::L1 => [
            "الحضور كثير، فأوقفنا بعض الإضافات. الصوت كما هو.",
            "Many people are listening, so some extras are off. The sound is not affected.",
        ],
        Level::L2 => [
            "الحضور كثير جدًا، وقد يصل الصوت إلى القادمين الجدد متأخرًا بضع ثوان.",
            "A great many people are listening. For those who join now the sound may be a few seconds later.",
        ],
        Level::L3 => [
            "خفضنا جودة الصوت قليلًا كي يسمع الجميع.",
            "The sound is a little simpler for the time being, so that everyone can hear.",
        ],
        Level::L4 => [
            "على القادمين الجدد أن ينتظروا قليلًا، ومن يستمع الآن يبقى.",
            "Newcomers wait for a short while. Whoever is listening stays.",
        ],
        Level::L5 => [
            "لا مكان لمستمعين جدد الآن، ويسمعون البث المتأخر. من يستمع الآن يبقى.",
            "There is no room for newcomers now; they hear the delayed programme. Whoever is listening stays.",
        ],
        Level::L6 => [
            "تعذّر البث المباشر. التسجيل مستمر وسيُنشر فور انتهاء الحديث.",
            "The live programme cannot be sent. It is being recorded and will be published as soon as it ends.",
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Rendition;

    #[test]
    fn only_what_is_done_is_said() {
        let none = Measures::default();
        let says = |level, measures: &Measures, word: &str| {
            let [ar, en] = sentence(level, measures);
            assert!(en.contains(word) && !ar.is_empty(), "{level:?}: {en}");
        };
        says(Level::L0, &none, "as it should");
        says(Level::L2, &none, "extras are off");
        says(Level::L3, &none, "extras are off");
        says(Level::L2, &Measures { newcomers_tier: Tier::new(2).unwrap(), ..none }, "seconds later");
        let small = Some(Rendition::Opus24);
        says(Level::L2, &Measures { newcomers_cap: small, ..none }, "those who join now the sound");
        says(
            Level::L3,
            &Measures { newcomers_cap: small, everyones_cap: small, ..none },
            "simpler for the time",
        );
        says(Level::L4, &none, "Newcomers wait");
        says(Level::L0, &Measures { admission: Admission::Waiting, ..none }, "Newcomers wait");
        says(Level::L6, &none, "recorded");
    }
}
