//! apt's source files, in both their formats: deb822 stanzas and one-line entries.

/// Where a system's backports come from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Backports {
    /// Among the configured sources already.
    Configured,
    /// From this deb822 source file.
    Stanza(String),
    /// From this one-line source file.
    Line(String),
    /// Nowhere: the suite itself is not configured.
    Unknown,
}

/// The source of `CODENAME-backports`, made from the source of `CODENAME` among `texts`: the same
/// place, options and components.
pub(crate) fn backports(texts: &[String], codename: &str) -> Backports {
    let suite = format!("{codename}-backports");
    if texts
        .iter()
        .any(|text| text.split_whitespace().any(|word| word == suite))
    {
        return Backports::Configured;
    }
    let stanza = |text: &String| {
        text.split("\n\n")
            .find_map(|stanza| from_stanza(stanza, codename, &suite))
    };
    let line = |text: &String| {
        text.lines()
            .find_map(|line| from_line(line, codename, &suite))
    };
    let stanza = texts.iter().find_map(stanza).map(Backports::Stanza);
    stanza
        .or_else(|| texts.iter().find_map(line).map(Backports::Line))
        .unwrap_or(Backports::Unknown)
}

fn from_stanza(stanza: &str, codename: &str, suite: &str) -> Option<String> {
    let lines = stanza.lines().filter(|line| !line.starts_with('#'));
    let field = |name: &str| {
        let value = lines.clone().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value)
        });
        value.unwrap_or_default().split_whitespace()
    };
    let binary = field("Types").any(|kind| kind == "deb");
    let enabled = !field("Enabled").any(|value| value == "no");
    if !(binary && enabled && field("Suites").any(|known| known == codename)) {
        return None;
    }
    let changed = lines.map(|line| match line.split_once(':') {
        Some((key, _)) if key.eq_ignore_ascii_case("suites") => format!("{key}: {suite}\n"),
        Some((key, _)) if key.eq_ignore_ascii_case("types") => format!("{key}: deb\n"),
        _ => format!("{line}\n"),
    });
    Some(changed.collect())
}

fn from_line(line: &str, codename: &str, suite: &str) -> Option<String> {
    let rest = line
        .trim()
        .strip_prefix("deb")?
        .strip_prefix([' ', '\t'])?
        .trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(inside) => {
            let (options, rest) = inside.split_once(']')?;
            (format!("[{options}] "), rest)
        }
        None => (String::new(), rest),
    };
    let rest = rest.split('#').next().unwrap_or_default();
    let mut words = rest.split_whitespace();
    let (uri, known) = (words.next()?, words.next()?);
    let components: Vec<&str> = words.collect();
    (known == codename).then(|| format!("deb {options}{uri} {suite} {}\n", components.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(text: &str) -> Backports {
        backports(&[String::new(), text.into()], "bookworm")
    }

    #[test]
    fn stanza_keeps_everything_but_its_suites() {
        let text = "# ours\nTypes: deb deb-src\n# note\nURIs: file:/mirror\n\
                    Suites: bookworm bookworm-updates\nComponents: main\nSigned-By: /key.gpg\n\n\
                    Types: deb\nURIs: file:/security\nSuites: bookworm-security\nComponents: main\n";
        let expected = "Types: deb\nURIs: file:/mirror\nSuites: bookworm-backports\nComponents: main\n\
                        Signed-By: /key.gpg\n";
        assert_eq!(made(text), Backports::Stanza(expected.into()));
    }

    #[test]
    fn line_keeps_everything_but_its_suite() {
        let text = "# deb file:/old bookworm main\ndeb-src file:/mirror bookworm main\n\
                    deb [signed-by=/key.gpg] file:/mirror bookworm main contrib # ours\n";
        let expected = "deb [signed-by=/key.gpg] file:/mirror bookworm-backports main contrib\n";
        assert_eq!(made(text), Backports::Line(expected.into()));
    }

    #[test]
    fn source_of_another_suite_is_not_taken() {
        assert_eq!(
            made("deb file:/mirror bookworm-security main"),
            Backports::Unknown
        );
        let disabled = "Types: deb\nEnabled: no\nURIs: file:/mirror\nSuites: bookworm";
        assert_eq!(made(disabled), Backports::Unknown);
    }

    #[test]
    fn configured_backports_are_left_as_they_are() {
        let text = "deb file:/mirror bookworm main\ndeb file:/mirror bookworm-backports main";
        assert_eq!(made(text), Backports::Configured);
    }
}
