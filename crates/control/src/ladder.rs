//! The ladder's levels in words, as a listener reads them.

/// What a level means, in Arabic and English.
pub(crate) fn sentence(level: u8) -> [&'static str; 2] {
    match level {
        0 => ["كل شيء يعمل كما ينبغي.", "Everything is running as it should."],
        1 => [
            "الحضور كثير، فأوقفنا بعض الإضافات. الصوت كما هو.",
            "Many people are listening, so some extras are off. The sound is not affected.",
        ],
        2 => [
            "الحضور كثير جدًا، وقد يصل الصوت إلى القادمين الجدد متأخرًا بضع ثوان.",
            "A great many people are listening. For those who join now the sound may be a few seconds later.",
        ],
        3 => [
            "خفضنا جودة الصوت قليلًا كي يسمع الجميع.",
            "The sound is a little simpler for the time being, so that everyone can hear.",
        ],
        4 => [
            "على القادمين الجدد أن ينتظروا قليلًا، ومن يستمع الآن يبقى.",
            "Newcomers wait for a short while. Whoever is listening stays.",
        ],
        5 => [
            "لا مكان لمستمعين جدد الآن، ويسمعون البث المتأخر. من يستمع الآن يبقى.",
            "There is no room for newcomers now; they hear the delayed programme. Whoever is listening stays.",
        ],
        _ => [
            "تعذّر البث المباشر. التسجيل مستمر وسيُنشر فور انتهاء الحديث.",
            "The live programme cannot be sent. It is being recorded and will be published as soon as it ends.",
        ],
    }
}
