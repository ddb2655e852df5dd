//! Icecast metadata inside the audio: for a client that sent `Icy-MetaData: 1`, a block after every `icy-metaint` bytes
//! of audio.
//!
//! ```text
//! audio (metaint bytes) · n · 16·n bytes "StreamTitle='…';" and zeros · audio (metaint bytes) · 0 · audio …
//! ```

use bytes::Bytes;

/// Bytes of audio between blocks that `icy-metaint` tells the client: two seconds at 64 kbit/s.
pub const METAINT: usize = 16_000;

/// Longest text in a block: 255 times 16 bytes.
const MAX_TEXT: usize = 255 * 16;

/// A block that says a title, made once for all listeners. Cloning shares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TitleBlock(Bytes);

impl TitleBlock {
    /// The block of a title. Control characters become spaces, an apostrophe that would end the title early becomes a
    /// typographic one, and what goes beyond 4080 bytes is cut off at a character.
    pub fn new(title: &str) -> Self {
        const BEFORE: &str = "StreamTitle='";
        const AFTER: &str = "';";
        let title = title.replace(char::is_control, " ").replace("';", "’;");
        let title = &title[..title.floor_char_boundary(MAX_TEXT - BEFORE.len() - AFTER.len())];
        let text = format!("{BEFORE}{title}{AFTER}");
        let units = text.len().div_ceil(16);
        let mut block = Vec::with_capacity(1 + 16 * units);
        block.push(units as u8);
        block.extend(text.bytes());
        block.resize(1 + 16 * units, 0);
        Self(Bytes::from(block))
    }

    /// The whole block.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }
}

/// Puts blocks between the bytes of one listener's stream.
#[derive(Debug, Clone)]
pub struct Interleaver {
    metaint: usize,
    /// Bytes of audio until the next block.
    until: usize,
    sent: Option<TitleBlock>,
}

impl Interleaver {
    /// At the beginning of a response that says `icy-metaint: {metaint}`.
    ///
    /// # Panics
    /// If `metaint` is 0.
    pub fn new(metaint: usize) -> Self {
        assert!(metaint > 0, "some audio lies between blocks");
        Self { metaint, until: metaint, sent: None }
    }

    /// Hands `audio` to `out` in pieces, with blocks where they are due: the title's if it is another than the one sent
    /// last, otherwise the empty one.
    pub fn weave(&mut self, audio: &[u8], title: &TitleBlock, mut out: impl FnMut(&[u8])) {
        let mut rest = audio;
        while let Some((piece, after)) = rest.split_at_checked(self.until) {
            out(piece);
            rest = after;
            self.until = self.metaint;
            if self.sent.as_ref() == Some(title) {
                out(&[0]);
            } else {
                out(&title.0);
                self.sent = Some(title.clone());
            }
        }
        self.until -= rest.len();
        if !rest.is_empty() {
            out(rest);
        }
    }
}

/// Takes a stream apart again: audio, and the titles in it. For clients and tests.
#[derive(Debug, Clone)]
pub struct Splitter {
    metaint: usize,
    state: State,
}

#[derive(Debug, Clone)]
enum State {
    /// Bytes of audio to come.
    Audio(usize),
    /// The length of a block comes next.
    Length,
    /// The text of a block so far, and its whole length.
    Text(Vec<u8>, usize),
}

impl Splitter {
    /// At the beginning of a response that says `icy-metaint: {metaint}`.
    ///
    /// # Panics
    /// If `metaint` is 0.
    pub fn new(metaint: usize) -> Self {
        assert!(metaint > 0, "some audio lies between blocks");
        Self { metaint, state: State::Audio(metaint) }
    }

    /// Takes received bytes; appends audio to `audio` and each title, lossily read, to `titles`.
    pub fn push(&mut self, mut bytes: &[u8], audio: &mut Vec<u8>, titles: &mut Vec<String>) {
        while let [first, rest @ ..] = bytes {
            match &mut self.state {
                State::Audio(until) => {
                    let (taken, rest) = bytes.split_at(bytes.len().min(*until));
                    audio.extend_from_slice(taken);
                    bytes = rest;
                    *until -= taken.len();
                    if *until == 0 {
                        self.state = State::Length;
                    }
                }
                State::Length => {
                    bytes = rest;
                    self.state = match 16 * usize::from(*first) {
                        0 => State::Audio(self.metaint),
                        length => State::Text(Vec::with_capacity(length), length),
                    };
                }
                State::Text(text, length) => {
                    let (taken, rest) = bytes.split_at(bytes.len().min(*length - text.len()));
                    text.extend_from_slice(taken);
                    bytes = rest;
                    if text.len() == *length {
                        titles.extend(title_of(text));
                        self.state = State::Audio(self.metaint);
                    }
                }
            }
        }
    }
}

/// The title within a block's text.
fn title_of(text: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(text);
    let (title, _) = text.strip_prefix("StreamTitle='")?.split_once("';")?;
    Some(title.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_come_where_they_are_due_and_titles_when_they_change() {
        let audio: Vec<u8> = (0..1_000u32).map(|n| n as u8).collect();
        let titles = [TitleBlock::new("one"), TitleBlock::new("اثنان")];
        for step in [1, 7, 64, 100, 999, 1_000] {
            let mut weave = Interleaver::new(64);
            let mut woven = Vec::new();
            for (index, start) in (0..audio.len()).step_by(step).enumerate() {
                let piece = &audio[start..audio.len().min(start + step)];
                let title = &titles[usize::from(index > 0 && start >= 500)];
                weave.weave(piece, title, |piece| woven.extend_from_slice(piece));
            }
            let (mut heard, mut said) = (Vec::new(), Vec::new());
            let mut splitter = Splitter::new(64);
            woven.chunks(13).for_each(|chunk| splitter.push(chunk, &mut heard, &mut said));
            assert_eq!(heard, audio, "steps of {step}");
            assert_eq!(
                woven.len() - audio.len() - 1_000 / 64,
                said.len() * 32,
                "one byte a block, 32 a title"
            );
            assert_eq!(said[0], "one");
            assert!(said.len() <= 2, "a title is sent once");
        }
    }

    #[test]
    fn titles_cannot_break_the_block() {
        let block = |title| TitleBlock::new(title).as_bytes().clone();
        assert_eq!(block("")[..], *b"\x01StreamTitle='';\0");
        assert_eq!(title_of(&block("It's\n'; StreamUrl='x")[1..]).unwrap(), "It's ’; StreamUrl='x");
        let long = block(&"ش".repeat(5_000));
        assert_eq!(long.len(), 1 + MAX_TEXT);
        assert!(title_of(&long[1..]).unwrap().chars().all(|c| c == 'ش'));
    }
}
