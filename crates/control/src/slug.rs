//! Names of events, made from their titles.

use model::EventSlug;

/// Longest name made here: room for a number behind it.
const CHARS_MAX: usize = 48;

/// The name that a title suggests: Latin letters and digits as they are, accents dropped, Arabic letters by the
/// letters they are commonly written with, everything else a dash. `None` if nothing is left.
pub(crate) fn suggested(title: &str) -> Option<EventSlug> {
    let mut name = String::new();
    for c in title.chars().flat_map(char::to_lowercase) {
        match letters(c) {
            Some(letters) => name.push_str(letters),
            None if c.is_ascii_alphanumeric() => name.push(c),
            // Marks on a letter, and what joins or parts letters, belong to the word.
            None if matches!(c, '\u{0300}'..='\u{036F}' | '\u{064B}'..='\u{0670}' | '\u{0640}' | '\u{200C}' | '\u{200D}' | '\'' | '’') =>
                {}
            None if name.ends_with('-') || name.is_empty() => {}
            None => name.push('-'),
        }
    }
    if name.len() > CHARS_MAX {
        name.truncate(CHARS_MAX);
        // Not in the middle of a word, unless it is all one word.
        if let Some(end) = name.rfind('-').filter(|end| *end > CHARS_MAX / 2) {
            name.truncate(end);
        }
    }
    name.trim_end_matches('-').parse().ok()
}

/// `base`, then `base-2`, `base-3` and so on.
pub(crate) fn numbered(base: &EventSlug, number: u32) -> EventSlug {
    if number < 2 {
        return base.clone();
    }
    format!("{base}-{number}").parse().unwrap_or_else(|_| base.clone())
}

fn letters(c: char) -> Option<&'static str> {
    Some(match c {
        'à'..='å' | 'ā' | 'ă' | 'ą' => "a",
        'æ' => "ae",
        'ç' | 'ć' | 'č' => "c",
        'ð' | 'đ' => "d",
        'è'..='ë' | 'ē' | 'ė' | 'ę' | 'ě' => "e",
        'ğ' => "g",
        'ì'..='ï' | 'ī' | 'ı' => "i",
        'ł' => "l",
        'ñ' | 'ń' | 'ň' => "n",
        'ò'..='ö' | 'ø' | 'ō' | 'ő' => "o",
        'œ' => "oe",
        'ř' => "r",
        'ß' => "ss",
        'ś' | 'ş' | 'š' => "s",
        'ţ' | 'ť' => "t",
        'ù'..='ü' | 'ū' | 'ů' | 'ű' => "u",
        'ý' | 'ÿ' => "y",
        'ź' | 'ż' | 'ž' => "z",
        'ا' | 'أ' | 'آ' | 'ى' | 'ع' | 'ة' | 'ٱ' => "a",
        'إ' => "i",
        'ب' => "b",
        'پ' => "p",
        'ت' | 'ط' => "t",
        'ث' => "th",
        'ج' => "j",
        'چ' => "ch",
        'ح' | 'ه' => "h",
        'خ' => "kh",
        'د' | 'ض' => "d",
        'ذ' => "dh",
        'ر' => "r",
        'ز' | 'ظ' => "z",
        'ژ' => "zh",
        'س' | 'ص' => "s",
        'ش' => "sh",
        'غ' => "gh",
        'ف' => "f",
        'ق' => "q",
        'ك' | 'ک' => "k",
        'گ' => "g",
        'ل' => "l",
        'م' => "m",
        'ن' => "n",
        'و' | 'ؤ' => "w",
        'ي' | 'ئ' | 'ی' => "y",
        'ء' => "",
        '٠' | '۰' => "0",
        '١' | '۱' => "1",
        '٢' | '۲' => "2",
        '٣' | '۳' => "3",
        '٤' | '۴' => "4",
        '٥' | '۵' => "5",
        '٦' | '۶' => "6",
        '٧' | '۷' => "7",
        '٨' | '۸' => "8",
        '٩' | '۹' => "9",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_become_names() {
        let check = |title: &str, expected: Option<&str>| {
            assert_eq!(suggested(title).as_ref().map(EventSlug::as_str), expected, "{title}");
        };
        check("An Evening with Everyone!", Some("an-evening-with-everyone"));
        check("  <b>Don't</b> & “do” — 2026 ", Some("b-dont-b-do-2026"));
        check("Çağrı Ünlü", Some("cagri-unlu"));
        check("حديث المساء ٢٠٢٦", Some("hdyth-almsa-2026"));
        check("حَدِيث", Some("hdyth"));
        check("می\u{200C}خواهم", Some("mykhwahm"));
        check("講演", None);
        check("---", None);
        check(&"word ".repeat(40), Some("word-word-word-word-word-word-word-word-word"));
        check(&"x".repeat(200), Some(&"x".repeat(CHARS_MAX)));
    }

    #[test]
    fn a_taken_name_gets_a_number() {
        let base = suggested("Talk").unwrap();
        assert_eq!(numbered(&base, 1).as_str(), "talk");
        assert_eq!(numbered(&base, 12).as_str(), "talk-12");
    }
}
