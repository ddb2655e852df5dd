//! Which language a visitor reads.

/// A language of the pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Language {
    /// Arabic, written from right to left.
    Ar,
    /// English.
    #[default]
    En,
}

impl Language {
    /// Both, in the order of their switch.
    pub const ALL: [Self; 2] = [Self::Ar, Self::En];

    /// Its BCP 47 tag: `ar` or `en`. For `lang`, `Content-Language` and `?lang=`.
    pub const fn tag(self) -> &'static str {
        match self {
            Self::Ar => "ar",
            Self::En => "en",
        }
    }

    /// The direction it is written in: `rtl` or `ltr`. For `dir`.
    pub const fn direction(self) -> &'static str {
        match self {
            Self::Ar => "rtl",
            Self::En => "ltr",
        }
    }

    /// The language a tag such as `ar`, `AR-eg` or `en_GB` belongs to.
    pub fn from_tag(tag: &str) -> Option<Self> {
        let primary = tag.trim().split(['-', '_']).next().unwrap_or_default();
        Self::ALL.into_iter().find(|language| language.tag().eq_ignore_ascii_case(primary))
    }
}

/// The language of a page: `?lang=` if it names one of ours, otherwise the best of `Accept-Language`
/// (RFC 9110 §12.5.4), otherwise English. Never fails; what cannot be read counts as absent.
///
/// `query` is the request's query string, raw, without `?`. Of equal weights the first named wins; `q=0` refuses. At
/// most 32 entries are read.
pub fn negotiate_language(query: Option<&str>, accept_language: Option<&str>) -> Language {
    let asked =
        query.into_iter().flat_map(|query| query.split('&')).find_map(|pair| pair.strip_prefix("lang="));
    if let Some(language) = asked.and_then(Language::from_tag) {
        return language;
    }
    let mut best: Option<(Language, u16)> = None;
    for entry in accept_language.unwrap_or_default().split(',').take(32) {
        let mut fields = entry.split(';');
        let Some(language) = fields.next().and_then(Language::from_tag) else { continue };
        let weight = fields.find_map(|field| field.trim().strip_prefix("q=")).map_or(1000, thousandths);
        if weight > best.map_or(0, |(_, weight)| weight) {
            best = Some((language, weight));
        }
    }
    best.map_or(Language::default(), |(language, _)| language)
}

/// A weight `0.xxx` or `1.000` in thousandths; unreadable ones count as 0.
fn thousandths(weight: &str) -> u16 {
    let value: f32 = weight.trim().parse().unwrap_or(0.0);
    // The cast saturates and turns NaN to 0.
    (value.clamp(0.0, 1.0) * 1000.0) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_wins_then_the_heaviest_then_english() {
        let check = |query, accept, expected| {
            assert_eq!(negotiate_language(query, accept), expected, "{query:?} {accept:?}");
        };
        check(None, None, Language::En);
        check(Some("lang=ar"), Some("en"), Language::Ar);
        check(Some("a=b&lang=AR-eg"), None, Language::Ar);
        check(Some("lang=fr"), Some("ar"), Language::Ar);
        check(Some("slang=ar"), None, Language::En);
        check(None, Some("fr, en;q=0.5, ar;q=0.9"), Language::Ar);
        check(None, Some("ar-SA,ar;q=0.9,en;q=0.8"), Language::Ar);
        check(None, Some("en, ar"), Language::En);
        check(None, Some("ar;q=0, en;q=0.1"), Language::En);
        check(None, Some("ar;q=NaN, ,;;q=, *"), Language::En);
        check(None, Some("ar;q=inf"), Language::Ar);
    }
}
