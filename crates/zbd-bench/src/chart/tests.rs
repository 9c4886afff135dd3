use super::*;

fn axis(label: &str, unit: &str, scale: Scale) -> Axis {
    Axis {
        label: label.to_owned(),
        unit: unit.to_owned(),
        scale,
    }
}

fn series(name: &str, points: &[(f64, f64)]) -> Series {
    let points = points.iter().map(|&(x, y)| Point {
        x,
        y,
        low: y * 0.95,
        high: y * 1.08,
    });
    Series {
        name: name.to_owned(),
        points: points.collect(),
    }
}

fn chart(series: Vec<Series>) -> Chart {
    Chart {
        title: "Appends against depth".to_owned(),
        subtitle: "emu: with a null store, 4 KiB, one zone, medians of 5".to_owned(),
        notes: vec!["Bars reach from the least to the greatest of 5 runs.".to_owned()],
        x: axis("requests in flight", "", Scale::Log2),
        y: axis("rate", "IOPS", Scale::Linear),
        series,
    }
}

fn depths(f: impl Fn(f64) -> f64) -> Vec<(f64, f64)> {
    (0..8)
        .map(|n| f64::from(n).exp2())
        .map(|x| (x, f(x)))
        .collect()
}

/// All charts that are known to have been hard to draw.
fn samples() -> Vec<(&'static str, Chart)> {
    let rising = depths(|x| 1e6 * x / (x + 12.0));
    let eight = (0..8)
        .map(|n| {
            let name = format!("append, {} zones, {} queues", 1 << n, n + 1);
            series(&name, &depths(|x| 9e4 * x / (x + 3.0 + f64::from(n) * 4.0)))
        })
        .collect();
    let mut sizes = chart(vec![series(
        "append",
        &[512.0, 4096.0, 16384.0, 65536.0, 1_048_576.0].map(|x| (x, x * 1e5)),
    )]);
    sizes.x = axis("block size", "B", Scale::Log2);
    sizes.y = axis("throughput", "B/s", Scale::Linear);
    let mut seconds = chart(vec![series(
        "p99 of appends",
        &(0..30)
            .map(|n| (f64::from(n), 4e-5 + 1e-6 * f64::from(n % 7)))
            .collect::<Vec<_>>(),
    )]);
    seconds.x = axis("time", "s", Scale::Linear);
    seconds.y = axis("latency", "s", Scale::Linear);
    let mut logarithmic = chart(vec![series("p99", &depths(|x| 1e-5 * x * x))]);
    logarithmic.y = axis("latency", "s", Scale::Log2);
    let mut crowded = chart(vec![series(
        "append",
        &(1..=16)
            .map(|n| (f64::from(n) * 4e6, 1e5))
            .collect::<Vec<_>>(),
    )]);
    crowded.x = axis("zone size", "B", Scale::Log2);
    let mut wordy = chart(vec![
        series(&"a name that does not end ".repeat(8), &rising),
        series("b", &rising),
    ]);
    wordy.title = "A title that goes on and on <&> ".repeat(6);
    wordy.subtitle = "unbroken".repeat(40);
    wordy.notes = vec!["A note of many words. ".repeat(30), "Another.".to_owned()];
    wordy.y.label = "a label that goes on and on ".repeat(6);
    wordy.x.label = "a label that goes on and on ".repeat(6);
    vec![
        ("one", chart(vec![series("append", &rising)])),
        (
            "two",
            chart(vec![series("append", &rising), series("write", &rising)]),
        ),
        ("eight", chart(eight)),
        (
            "flat",
            chart(vec![
                series("append", &depths(|_| 2900.0)),
                series("write", &depths(|_| 2950.0)),
            ]),
        ),
        ("tiny", chart(vec![series("append", &depths(|x| x * 3e-8))])),
        ("huge", chart(vec![series("append", &depths(|x| x * 7e17))])),
        ("point", chart(vec![series("append", &[(32.0, 45_000.0)])])),
        ("zero", chart(vec![series("append", &depths(|_| 0.0))])),
        ("nothing", chart(Vec::new())),
        (
            "outside",
            chart(vec![series(
                "append",
                &[(0.0, 1.0), (1.0, f64::NAN), (2.0, 5.0)],
            )]),
        ),
        ("sizes", sizes),
        ("seconds", seconds),
        ("logarithmic", logarithmic),
        ("crowded", crowded),
        ("wordy", wordy),
    ]
}

/// The texts of a picture, each with its left, right and base line.
fn texts(svg: &str) -> Vec<(f64, f64, f64, String)> {
    use quick_xml::{Reader, events::Event};
    let mut reader = Reader::from_str(svg);
    let mut found = Vec::new();
    let mut place = None;
    loop {
        match reader.read_event().expect("the picture is well-formed") {
            Event::Start(e) if e.name().as_ref() == "text" => {
                let get = |name: &str| {
                    let value = e
                        .try_get_attribute(name)
                        .expect("attributes are well-formed");
                    value.map(|v| v.value.into_owned())
                };
                let number = |name| -> f64 {
                    get(name)
                        .and_then(|v| v.parse().ok())
                        .expect("it has a place")
                };
                let anchor = get("text-anchor").unwrap_or_default();
                place = Some((number("x"), number("y"), number("font-size"), anchor));
                found.push((0.0, 0.0, 0.0, String::new()));
            }
            Event::Text(t) => {
                if let (Some(_), Some(last)) = (&place, found.last_mut()) {
                    last.3 += &t;
                }
            }
            Event::GeneralRef(_) => {
                if let (Some(_), Some(last)) = (&place, found.last_mut()) {
                    last.3.push('&');
                }
            }
            Event::End(e) if e.name().as_ref() == "text" => {
                let (x, y, size, anchor) = place.take().expect("it began");
                let last = found.last_mut().expect("it began");
                let width = text::width(&last.3, size);
                let left = match anchor.as_str() {
                    "end" => x - width,
                    "middle" => x - width / 2.0,
                    _ => x,
                };
                (last.0, last.1, last.2) = (left, left + width, y);
            }
            Event::Eof => return found,
            _ => {}
        }
    }
}

#[test]
fn no_text_covers_another_or_leaves_the_picture() {
    for (name, chart) in samples() {
        let svg = svg(&chart);
        let texts = texts(&svg);
        assert!(texts.len() > 8, "{name}");
        for (i, a) in texts.iter().enumerate() {
            assert!(a.0 >= 0.0 && a.1 <= 800.0, "{name}: {a:?}");
            for b in &texts[i + 1..] {
                let apart = a.1 <= b.0 || b.1 <= a.0 || (a.2 - b.2).abs() >= 13.0;
                assert!(apart, "{name}: {a:?} and {b:?}");
            }
        }
    }
}

#[test]
fn each_point_has_a_marker_and_an_error_bar() {
    let svg = svg(&chart(vec![series("append", &depths(|x| x * 1000.0))]));
    // Eight points, and one in the legend.
    assert_eq!(svg.matches("stroke-width=\"1.8\"").count(), 9);
    let bars = svg.lines().find(|l| l.contains("stroke-width=\"1.4\""));
    // A line and two ends; the first point's are too short to be seen.
    assert_eq!(bars.expect("there are bars").matches('M').count() % 3, 0);
    assert!(bars.expect("there are bars").matches('M').count() >= 18);
}

#[test]
fn points_without_a_place_are_left_out_and_counted() {
    let (_, chart) = samples().swap_remove(9);
    let svg = svg(&chart);
    assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    assert!(svg.contains("2 points have no place"), "{svg}");
    assert!(terminal(&chart, 80, Glyphs::Unicode).contains("2 points have no place"));
}

#[test]
fn a_picture_says_what_it_shows_to_those_who_do_not_see_it() {
    let svg = svg(&chart(vec![series("append", &depths(|x| x * 1000.0))]));
    assert!(svg.contains("<title>Appends against depth</title>"));
    assert!(svg.contains("append: from 1.00 k to 128 k"), "{svg}");
}

#[test]
fn what_a_page_is_given_stays_text() {
    let nasty = "<script>\"&\u{1b}";
    let mut chart = chart(vec![series(nasty, &[(1.0, 1.0)])]);
    chart.notes.push(nasty.to_owned());
    let page = Page {
        title: nasty.to_owned(),
        intro: vec![nasty.to_owned()],
        charts: vec![chart],
        tables: vec![Table {
            caption: nasty.to_owned(),
            heads: vec!["depth".to_owned(), nasty.to_owned()],
            rows: vec![vec!["1".to_owned(), nasty.to_owned()]],
        }],
        machine: vec![(nasty.to_owned(), nasty.to_owned())],
        commands: vec![nasty.to_owned()],
    };
    let html = html(&page);
    assert!(
        !html.contains("<script") && !html.contains('\u{1b}'),
        "{html}"
    );
    assert_eq!(html.matches("&lt;script&gt;").count(), 12, "{html}");
    assert!(html.contains("<td class=\"n\">1</td><td>"), "{html}");
}

#[test]
fn a_page_needs_nothing_from_elsewhere() {
    let page = Page {
        charts: samples().into_iter().map(|(_, chart)| chart).collect(),
        ..Page::default()
    };
    let html = html(&page).replace("http://www.w3.org/2000/svg", "");
    for word in ["http:", "https:", "src=", "href=", "url(", "@import"] {
        assert!(!html.contains(word), "{word}");
    }
}

#[test]
fn a_terminal_shows_a_bar_for_each_point() {
    let chart = chart(vec![
        series("append", &[(1.0, 25_000.0), (32.0, 100_000.0)]),
        series("write", &[(32.0, 50_000.0)]),
    ]);
    let text = terminal(&chart, 60, Glyphs::Unicode);
    let bars: Vec<_> = text.lines().filter(|line| line.contains('█')).collect();
    let lengths: Vec<_> = bars.iter().map(|line| line.matches('█').count()).collect();
    assert_eq!(bars.len(), 3, "{text}");
    assert_eq!(lengths[1] / lengths[0], 4, "{text}");
    assert!(bars[0].starts_with("   1  append "), "{text}");
    assert!(bars[0].ends_with(" 25.0 k  ±8 %"), "{text}");
    assert!(bars[2].starts_with("      write "), "{text}");
    let text = terminal(&chart, 60, Glyphs::Ascii);
    assert!(text.is_ascii() && text.contains("####"), "{text}");
}

#[test]
fn no_line_on_a_terminal_is_too_long() {
    use unicode_width::UnicodeWidthStr;
    for (name, chart) in samples() {
        for (glyphs, width) in [
            (Glyphs::Unicode, 80),
            (Glyphs::Ascii, 80),
            (Glyphs::Unicode, 72),
        ] {
            let text = terminal(&chart, width, glyphs);
            for line in text.lines() {
                assert!(line.width() <= width, "{name}: {line}");
            }
        }
    }
}

/// Writes the pictures of this module where one can look at them.
#[test]
#[ignore = "for looking at: set CHARTS to a folder"]
fn pictures_to_look_at() {
    let folder = std::env::var("CHARTS").expect("CHARTS names a folder");
    let mut page = Page {
        title: "Appends against depth".to_owned(),
        intro: vec!["What the device does.".to_owned()],
        machine: vec![("processor".to_owned(), "two of them".to_owned())],
        commands: vec!["zbd-bench sweep --plot FILE.svg".to_owned()],
        ..Page::default()
    };
    page.tables.push(Table {
        caption: "Medians".to_owned(),
        heads: ["op", "depth", "IOPS"].map(str::to_owned).to_vec(),
        rows: vec![["append", "1", "25.0 k ± 3 %"].map(str::to_owned).to_vec(); 4],
    });
    for (name, chart) in samples() {
        std::fs::write(format!("{folder}/{name}.svg"), svg(&chart)).expect("it can be written");
        println!("{}", terminal(&chart, 80, Glyphs::Unicode));
        page.charts.push(chart);
    }
    std::fs::write(format!("{folder}/page.html"), html(&page)).expect("it can be written");
}
