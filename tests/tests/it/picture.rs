use burn_sam::{Axis, LossCurve, LossSurface, Picture, PictureError};
use burn_sam_tests::random_cases;
use proptest::prelude::*;

fn axis(label: &str, points: usize) -> Axis {
    Axis {
        label: label.to_string(),
        positions: (0..points).map(|point| point as f64).collect(),
    }
}

fn surface(rows: usize, columns: usize, loss: impl Fn(f64, f64) -> f64) -> LossSurface {
    let row = |y| {
        (0..columns)
            .map(|x| hole_or(loss(x as f64, y as f64)))
            .collect()
    };
    LossSurface {
        x: axis("to the right", columns),
        y: axis("upwards", rows),
        losses: (0..rows).map(row).collect(),
    }
}

fn curve(losses: Vec<f64>) -> LossCurve {
    LossCurve {
        x: axis("along the line", losses.len()),
        losses: losses.into_iter().map(hole_or).collect(),
    }
}

/// NaN stands for a hole.
fn hole_or(loss: f64) -> Option<f64> {
    (!loss.is_nan()).then_some(loss)
}

/// Of a PNG file's head.
fn size(png: &[u8]) -> (u32, u32) {
    assert_eq!(&png[..8], b"\x89PNG\r\n\x1a\n");
    let number = |at: usize| u32::from_be_bytes(png[at..at + 4].try_into().unwrap());
    (number(16), number(20))
}

#[test]
fn pictures_name_what_they_show() {
    let steep = surface(9, 9, |x, y| 0.5 + (x - 4.0).powi(2) + (y - 4.0).powi(2));
    let wide = surface(9, 9, |x, y| {
        1.0 + 0.1 * ((x - 4.0).powi(2) + (y - 4.0).powi(2))
    });
    let both = [("SGD", &steep), ("SAM", &wide)];
    for picture in [Picture::contours(&both), Picture::surfaces(&both)] {
        let picture = picture.unwrap();
        let svg = picture.as_svg();
        for text in [
            "SGD",
            "SAM",
            "to the right",
            "upwards",
            "loss (log scale)",
            "1",
            "20",
        ] {
            let text = format!("\n{text}\n");
            let labels =
                svg.matches(&text).count() + svg.matches(&format!("edge: {}", text.trim())).count();
            assert!(labels > 0, "{text} in {svg}");
        }
        assert_eq!(size(&picture.to_png()), (2100, 880));
    }
    let curves = [
        ("one", &curve(vec![3.0, 1.0, 2.0])),
        ("two", &curve(vec![2.0, 1.5, 4.0])),
    ];
    let picture = Picture::curves(&curves).unwrap();
    for text in ["one", "two", "along the line", "loss", "1.5"] {
        assert!(picture.as_svg().contains(&format!("\n{text}\n")), "{text}");
    }
    assert_eq!(size(&picture.to_png()), (1520, 920));
}

#[test]
fn one_scale_serves_all() {
    let colours = |surfaces: &[(&str, &LossSurface)]| {
        let svg = Picture::contours(surfaces).unwrap().as_svg().to_string();
        let fills = svg
            .split("fill=\"#")
            .skip(1)
            .map(|rest| rest[..6].to_string());
        fills.collect::<std::collections::HashSet<_>>()
    };
    let (low, high) = (
        surface(5, 5, |x, y| 1.0 + 0.01 * x * y),
        surface(5, 5, |x, y| 9.0 + 0.01 * x * y),
    );
    // Alone, each would have all colours; beside the other, no more than two.
    let others: [LossSurface; 2] = [surface(2, 2, |_, _| 1.0), surface(2, 2, |_, _| 9.16)];
    let bar_only = colours(&[("a", &others[0]), ("b", &others[1])]);
    assert_eq!(colours(&[("a", &low), ("b", &high)]), bar_only);
    assert!(colours(&[("a", &low)]).len() > 5);
}

/// The grey of holes.
const HOLE: &str = "fill=\"#C8C8C8\"";

#[test]
fn a_hole_is_a_gap() {
    let lines = |losses: Vec<f64>| {
        let picture = Picture::curves(&[("line", &curve(losses))]).unwrap();
        let svg = picture.as_svg();
        let of_curve = "stroke=\"#D55E00\"";
        (
            svg.matches(of_curve).count(),
            svg.matches("<circle").count(),
        )
    };
    // One of the lines is the legend's.
    assert_eq!(lines(vec![1.0, 2.0, 3.0, 4.0, 5.0]), (2, 0));
    assert_eq!(lines(vec![1.0, 2.0, f64::NAN, 4.0, 5.0]), (3, 0));
    let (_, dots) = lines(vec![1.0, f64::NAN, 3.0, f64::NAN, f64::NAN]);
    assert_eq!(dots, 2);

    let whole = surface(5, 5, |x, y| 1.0 + x + y);
    let holed = surface(5, 5, |x, y| match (x, y) {
        (4.0, 4.0) | (0.0, 2.0) => f64::NAN,
        _ => 1.0 + x + y,
    });
    let contours = |surface| Picture::contours(&[("s", surface)]).unwrap();
    assert_eq!(contours(&whole).as_svg().matches(HOLE).count(), 0);
    assert_eq!(contours(&holed).as_svg().matches(HOLE).count(), 2);
    // Of 16 cells, one has the hole in the corner, and two the one at the edge.
    let polygons = |surface: &LossSurface| {
        let picture = Picture::surfaces(&[("s", surface)]).unwrap();
        picture.as_svg().matches("<polygon").count()
    };
    assert_eq!(polygons(&whole) - polygons(&holed), 3);
}

#[test]
fn files_are_what_their_names_say() {
    let folder = tempfile::tempdir().unwrap();
    let picture = Picture::curves(&[("line", &curve(vec![1.0, 2.0]))]).unwrap();
    picture.save(folder.path().join("a.svg")).unwrap();
    let svg = std::fs::read_to_string(folder.path().join("a.svg")).unwrap();
    assert_eq!(svg, picture.as_svg());
    picture.save(folder.path().join("a.png")).unwrap();
    assert_eq!(
        std::fs::read(folder.path().join("a.png")).unwrap(),
        picture.to_png()
    );

    let error = picture.save(folder.path().join("a.jpg")).unwrap_err();
    assert!(
        error.to_string().contains("neither an .svg nor a .png"),
        "{error}"
    );
    let error = picture
        .save(folder.path().join("nowhere/a.svg"))
        .unwrap_err();
    assert!(matches!(error, PictureError::File(..)), "{error}");
}

#[test]
fn what_cannot_be_drawn_is_an_error() {
    assert!(matches!(Picture::curves(&[]), Err(PictureError::Nothing)));
    assert!(matches!(Picture::contours(&[]), Err(PictureError::Nothing)));
    let named = |error: PictureError| error.to_string().starts_with("odd cannot be drawn");
    for losses in [vec![1.0], vec![f64::INFINITY, 1.0]] {
        assert!(named(
            Picture::curves(&[("odd", &curve(losses))]).unwrap_err()
        ));
    }
    let mut not_a_hole = curve(vec![1.0, 2.0]);
    not_a_hole.losses[1] = Some(f64::NAN);
    assert!(named(Picture::curves(&[("odd", &not_a_hole)]).unwrap_err()));
    let nothing = curve(vec![f64::NAN, f64::NAN]);
    assert!(matches!(
        Picture::curves(&[("holes", &nothing)]),
        Err(PictureError::Nothing)
    ));
    let mut descending = curve(vec![1.0, 2.0]);
    descending.x.positions.reverse();
    assert!(named(Picture::curves(&[("odd", &descending)]).unwrap_err()));
    let mut ragged = surface(3, 3, |x, y| x + y);
    let value = ragged.losses[0].pop().unwrap();
    ragged.losses[1].push(value);
    assert!(named(Picture::contours(&[("odd", &ragged)]).unwrap_err()));
    assert!(named(Picture::surfaces(&[("odd", &ragged)]).unwrap_err()));
}

fn losses() -> impl Strategy<Value = f64> {
    prop_oneof![
        -1e30..1e30f64,
        0.0..1.0f64,
        Just(0.0),
        Just(1.0),
        Just(1.0 + f64::EPSILON),
        Just(f64::MIN_POSITIVE / 4.0),
        Just(f64::MAX),
        Just(f64::NAN),
    ]
}

proptest! {
    #![proptest_config(random_cases(64))]

    #[test]
    fn any_losses_are_drawn_and_holes_are_counted(
        (rows, columns, values) in (2..6usize, 2..6usize).prop_flat_map(|(rows, columns)| {
            let values = proptest::collection::vec(losses(), rows * columns);
            (Just(rows), Just(columns), values)
        })
    ) {
        prop_assume!(values.iter().any(|value| !value.is_nan()));
        let holes = values.iter().filter(|value| value.is_nan()).count();
        let title = match holes {
            0 => "\ns\n".to_string(),
            _ => format!("\ns ({holes} not finite)\n"),
        };
        let surface = surface(rows, columns, |x, y| values[y as usize * columns + x as usize]);
        for picture in [Picture::contours(&[("s", &surface)]), Picture::surfaces(&[("s", &surface)])] {
            let picture = picture.unwrap();
            prop_assert!(!picture.as_svg().contains("NaN"));
            prop_assert!(picture.as_svg().contains(&title), "{title}");
        }
        let picture = Picture::curves(&[("s", &curve(values))]).unwrap();
        prop_assert!(!picture.as_svg().contains("NaN"));
        prop_assert!(picture.as_svg().contains(&title), "{title}");
    }
}
