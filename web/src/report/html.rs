//! HTML under construction.

use std::fmt::Display;

use crate::pages::escape;

/// HTML: what is ours goes in as it is, everything else is escaped. There is no third way in.
#[derive(Clone, Debug, Default)]
pub(super) struct Html(String);

impl Html {
    /// Markup of our own, known when this was compiled.
    pub(super) fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// Text, fit for content and for attributes in double quotes.
    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        escape(&mut self.0, text);
        self
    }

    /// A number as machines read it.
    pub(super) fn number(&mut self, number: impl Display) -> &mut Self {
        self.text(&number.to_string())
    }

    /// More HTML.
    pub(super) fn add(&mut self, other: &Self) -> &mut Self {
        self.0.push_str(&other.0);
        self
    }

    /// Text in an element that has no attributes.
    pub(super) fn element(&mut self, open: &'static str, text: &str, close: &'static str) -> &mut Self {
        self.raw(open).text(text).raw(close)
    }

    pub(super) fn into_string(self) -> String {
        self.0
    }
}

/// Text that stands for itself within a sentence, whatever direction either has.
pub(super) fn isolated(text: &str) -> Html {
    let mut html = Html::default();
    html.element("<bdi>", text, "</bdi>");
    html
}
