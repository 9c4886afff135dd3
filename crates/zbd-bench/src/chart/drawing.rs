//! SVG, element by element.

use std::fmt::{self, Display};

use quick_xml::{
    Writer,
    events::{BytesEnd, BytesStart, BytesText, Event},
};

use super::text::printable;

/// What elements have: names and values.
pub(crate) type Attributes<'a> = &'a [(&'a str, &'a dyn Display)];

/// A coordinate or a length. A hundredth of a pixel is as fine as anybody sees.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Px(pub(crate) f64);

impl Display for Px {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{:.2}", self.0);
        let text = text.trim_end_matches('0').trim_end_matches('.');
        f.write_str(if text == "-0" { "0" } else { text })
    }
}

/// A picture that is being written. What is given to it as text is escaped.
pub(crate) struct Drawing {
    writer: Writer<Vec<u8>>,
    open: Vec<&'static str>,
}

impl Drawing {
    /// An empty picture of this size, which it has unless it is shown in less room. The title and
    /// the description are for those who do not see it.
    pub(crate) fn new((width, height): (f64, f64), title: &str, description: &str) -> Self {
        let mut drawing = Self {
            writer: Writer::new_with_indent(Vec::new(), b' ', 1),
            open: Vec::new(),
        };
        drawing.begin(
            "svg",
            &[
                ("xmlns", &"http://www.w3.org/2000/svg"),
                ("viewBox", &format!("0 0 {} {}", Px(width), Px(height))),
                ("width", &Px(width)),
                ("height", &Px(height)),
                ("role", &"img"),
                ("font-family", &super::style::FONTS),
            ],
        );
        drawing.text("title", &[], title);
        drawing.text("desc", &[], description);
        drawing
    }

    /// Begins an element that others are put into.
    pub(crate) fn begin(&mut self, name: &'static str, attributes: Attributes<'_>) {
        self.write(Event::Start(element(name, attributes)));
        self.open.push(name);
    }

    /// Ends the element that was begun last.
    pub(crate) fn end(&mut self) {
        if let Some(name) = self.open.pop() {
            self.write(Event::End(BytesEnd::new(name)));
        }
    }

    /// An element with nothing in it.
    pub(crate) fn put(&mut self, name: &'static str, attributes: Attributes<'_>) {
        self.write(Event::Empty(element(name, attributes)));
    }

    /// An element with a text in it.
    pub(crate) fn text(&mut self, name: &'static str, attributes: Attributes<'_>, text: &str) {
        self.write(Event::Start(element(name, attributes)));
        self.write(Event::Text(BytesText::new(&printable(text))));
        self.write(Event::End(BytesEnd::new(name)));
    }

    /// The picture as it is now, with all its elements ended.
    pub(crate) fn finish(mut self) -> String {
        while !self.open.is_empty() {
            self.end();
        }
        let mut text = String::from_utf8_lossy(&self.writer.into_inner()).into_owned();
        text.push('\n');
        text
    }

    fn write(&mut self, event: Event<'_>) {
        // Memory takes whatever is written to it.
        let _ = self.writer.write_event(event);
    }
}

fn element(name: &'static str, attributes: Attributes<'_>) -> BytesStart<'static> {
    let mut element = BytesStart::new(name);
    for (name, value) in attributes {
        element.push_attribute((*name, printable(&value.to_string()).as_str()));
    }
    element
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_drawn_is_escaped_and_ended() {
        let mut drawing = Drawing::new((10.0, 20.5), "a < b", "\u{7}");
        drawing.begin("g", &[("class", &"\"x\" & 'y'")]);
        drawing.put("path", &[("d", &format!("M{} {}", Px(-0.001), Px(1.255)))]);
        drawing.text("text", &[("x", &Px(3.0))], "</text><script>&amp;");
        let text = drawing.finish();
        assert!(text.contains("viewBox=\"0 0 10 20.5\""), "{text}");
        assert!(text.contains("<title>a &lt; b</title>"), "{text}");
        assert!(text.contains("<desc>\u{fffd}</desc>"), "{text}");
        assert!(text.contains("&quot;x&quot; &amp;"), "{text}");
        assert!(text.contains("M0 1.25"), "{text}");
        assert!(
            text.contains("&lt;/text&gt;&lt;script&gt;&amp;amp;"),
            "{text}"
        );
        assert!(text.ends_with("</g>\n</svg>\n"), "{text}");
    }
}
