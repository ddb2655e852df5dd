//! Text that people type and other people see.

/// A title or name that cannot be shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTitle {
    /// Nothing visible is left.
    #[error("the text is empty")]
    Empty,
    /// More characters than allowed.
    #[error("the text has {characters} characters, at most {allowed} are allowed")]
    TooLong {
        /// Unicode scalar values given.
        characters: usize,
        /// Most allowed.
        allowed: usize,
    },
}

/// Makes one line of text safe to show beside other text.
///
/// Removes control characters and the bidirectional overrides, embeddings and isolates U+202A–U+202E and
/// U+2066–U+2069, with which a title could rearrange its surroundings; turns runs of white space into one space.
/// U+200C and U+200D (ZWNJ, ZWJ) stay: Arabic and Persian need them. Markup is text and stays as it is; escaping it
/// is the page's work.
///
/// # Errors
/// [`InvalidTitle`] if nothing is left, or more than `allowed` characters.
pub fn clean_line(text: &str, allowed: usize) -> Result<String, InvalidTitle> {
    let visible = text.chars().map(|c| if c.is_whitespace() { ' ' } else { c }).filter(|c| {
        !c.is_control() && !matches!(c, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{FEFF}')
    });
    let mut line = String::with_capacity(text.len().min(4 * allowed));
    let mut characters = 0;
    for c in visible {
        if c == ' ' && (line.is_empty() || line.ends_with(' ')) {
            continue;
        }
        characters += 1;
        if characters <= allowed {
            line.push(c);
        }
    }
    if characters > allowed {
        return Err(InvalidTitle::TooLong { characters, allowed });
    }
    line.truncate(line.trim_end().len());
    if line.is_empty() { Err(InvalidTitle::Empty) } else { Ok(line) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overrides_go_and_joiners_stay() {
        assert_eq!(clean_line("abc\u{202E}gpj.exe\u{2066}", 50).unwrap(), "abcgpj.exe");
        assert_eq!(clean_line("می\u{200C}خواهم", 50).unwrap(), "می\u{200C}خواهم");
        assert_eq!(clean_line("  <b>a\t\n b</b> ", 50).unwrap(), "<b>a b</b>");
    }

    #[test]
    fn nothing_and_too_much_are_refused() {
        assert_eq!(clean_line(" \u{202A} ", 5), Err(InvalidTitle::Empty));
        assert_eq!(clean_line("abcdef", 5), Err(InvalidTitle::TooLong { characters: 6, allowed: 5 }));
    }
}
