//! Who is ahead in a contest with [`rivals`](crate::rivals), and by how much: figures, tables, and a picture.

use std::path::Path;

use anyhow::Context;
use example_common::Method;
use example_common::options::absolute;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::comparison::{
    Outcome, Points, colour, last, over, percents, percents_and_dead, stopped_early,
};
use crate::over_time::{Line, Panel};
use crate::rivals::Rival;
use crate::training::mean_and_deviation;

/// What came out of a contender's trainings.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
pub struct Row {
    /// [`Method::Sgd`] is the optimizer alone, whichever it is.
    pub method: Method,
    /// The remedy, if there is one.
    pub rival: Option<Rival>,
    /// For readers.
    pub name: String,
    /// The remedy's strength, or the method's radius, if there is one to choose.
    pub setting: Option<f64>,
    /// A seed each.
    pub outcomes: Vec<Outcome>,
}

/// A task's rows.
#[derive(serde::Serialize, serde::Deserialize)]
pub struct Figures {
    /// For readers.
    pub title: String,
    /// The optimizer first.
    pub rows: Vec<Row>,
}

/// Writes figures as JSON, if there is a file for them, and says where.
///
/// # Errors
///
/// If it cannot be written.
pub fn save(figures: &[Figures], file: Option<&Path>) -> anyhow::Result<()> {
    if let Some(file) = file {
        std::fs::write(file, serde_json::to_string_pretty(figures)?)?;
        println!("figures: {}", absolute(file));
    }
    Ok(())
}

/// Who is ahead in a task, and by how much.
pub struct Verdict {
    /// The best of what is not SAM.
    pub rival: String,
    /// What the rule gains over it.
    pub gains: Vec<Gain>,
}

/// What the rule gains over the best rival.
pub struct Gain {
    /// Whose.
    pub of: Of,
    /// The remedy under it, if there is one.
    pub remedy: Option<Rival>,
    /// In points of accuracy.
    pub points: Points,
}

/// What is held against the best rival, after its last epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// The rule at one pass, alone.
    OnePass,
    /// The rule at two passes, alone.
    TwoPasses,
    /// The rule at one pass, with the best of the remedies under it.
    Both,
}

impl Of {
    const ALL: [Self; 3] = [Self::OnePass, Self::TwoPasses, Self::Both];

    fn name(self) -> &'static str {
        match self {
            Self::OnePass => "the rule, one pass",
            Self::TwoPasses => "the rule, two passes",
            Self::Both => "one pass, and the best remedy under it",
        }
    }

    fn colour(self) -> RGBColor {
        match self {
            Self::OnePass => colour(Method::Auto),
            Self::TwoPasses => colour(Method::Sgd),
            Self::Both => colour(Method::Msam),
        }
    }
}

/// Those whose accuracy is drawn over time.
pub const OVER_TIME: [Method; 3] = [Method::Sgd, Method::Auto, Method::Autotwopass];

impl Figures {
    /// Accuracy over time, given the seconds of a step of each in [`OVER_TIME`].
    pub fn panel(&self, seconds: &[f64]) -> Panel<'_> {
        let line = |(method, of_step): (Method, &f64)| {
            let row = self.row(method)?;
            Some(Line {
                method,
                name: &row.name,
                time: of_step / seconds[0],
                outcomes: &row.outcomes,
            })
        };
        Panel {
            title: &self.title,
            lines: OVER_TIME
                .into_iter()
                .zip(seconds)
                .filter_map(line)
                .collect(),
        }
    }

    fn row(&self, method: Method) -> Option<&Row> {
        let mut rows = self.rows.iter();
        rows.find(|row| row.method == method && row.rival.is_none())
    }

    /// The rule over the best rival, stopped early or not. The best rival, and the best remedy under the rule, are those of
    /// the reported seeds, which is in their favour.
    ///
    /// # Errors
    ///
    /// If there is no rival.
    pub fn verdict(&self) -> anyhow::Result<Verdict> {
        let rivals = self.rows.iter().filter(|row| row.method == Method::Sgd);
        let each = rivals.flat_map(|row| {
            let early = format!("{}, stopped early", row.name);
            [
                (row.name.clone(), last(&row.outcomes)),
                (early, stopped_early(&row.outcomes)),
            ]
        });
        let mean = |accuracies: &[f64]| mean_and_deviation(accuracies).0;
        let (rival, best) = each
            .max_by(|a, b| mean(&a.1).total_cmp(&mean(&b.1)))
            .with_context(|| format!("{}: no rival", self.title))?;
        let under = (self.rows.iter())
            .filter(|row| row.method == Method::Auto && row.rival.is_some())
            .max_by(|a, b| mean(&last(&a.outcomes)).total_cmp(&mean(&last(&b.outcomes))));
        let gain = |of| {
            let row = match of {
                Of::OnePass => self.row(Method::Auto),
                Of::TwoPasses => self.row(Method::Autotwopass),
                Of::Both => under,
            };
            let row = row?;
            Some(Gain {
                of,
                remedy: row.rival,
                points: over(&last(&row.outcomes), &best),
            })
        };
        Ok(Verdict {
            rival,
            gains: Of::ALL.into_iter().filter_map(gain).collect(),
        })
    }

    /// By how much the rule at one pass is above some accuracies, for a table: nothing without it.
    fn one_pass_over(&self, accuracies: &[f64]) -> String {
        let one_pass = self.row(Method::Auto).map(|row| last(&row.outcomes));
        let points = one_pass.map(|one_pass| over(&one_pass, accuracies));
        points.map_or(String::new(), |points| points.to_string())
    }

    /// A line a contender.
    pub fn table(&self) -> String {
        let mut table = format!("{}\n\n", self.title);
        table += "| | setting | accuracy, % | stopped early | one pass over it | over it stopped early |\n";
        table += "| --- | --- | --- | --- | --- | --- |\n";
        for row in &self.rows {
            let [after_last, stopped_early] = [last(&row.outcomes), stopped_early(&row.outcomes)];
            table += &format!(
                "| {} | {} | {} | {} | {} | {} |\n",
                row.name,
                row.setting
                    .map_or(String::new(), |setting| setting.to_string()),
                percents_and_dead(&after_last),
                percents(stopped_early.iter().copied()),
                self.one_pass_over(&after_last),
                self.one_pass_over(&stopped_early),
            );
        }
        table
    }
}

/// The verdicts: a line a task, with what the rule gains over the optimizer and over the best rival.
///
/// # Errors
///
/// If a task has no rival.
pub fn table(figures: &[Figures]) -> anyhow::Result<String> {
    let mut table = String::from(
        "| task | one pass over the optimizer | over it stopped early | best rival | one pass over the rival | \
         two passes | one pass and a remedy |\n| --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for figures in figures {
        let Verdict { rival, gains } = figures.verdict()?;
        let over_optimizer = |of: fn(&[Outcome]) -> Vec<f64>| {
            let alone = figures.row(Method::Sgd);
            alone.map_or(String::new(), |alone| {
                figures.one_pass_over(&of(&alone.outcomes))
            })
        };
        let over_rival = |of: Of| {
            let gain = gains.iter().find(|gain| gain.of == of)?;
            let remedy = gain.remedy.map(|remedy| format!(" ({})", remedy.name()));
            Some(format!("{}{}", gain.points, remedy.unwrap_or_default()))
        };
        let [one_pass, two_passes, both] = Of::ALL.map(|of| over_rival(of).unwrap_or_default());
        table += &format!(
            "| {} | {} | {} | {rival} | {one_pass} | {two_passes} | {both} |\n",
            figures.title,
            over_optimizer(last),
            over_optimizer(stopped_early),
        );
    }
    Ok(table)
}

/// The verdicts as a picture, with their intervals.
///
/// # Errors
///
/// If it cannot be drawn, or a task has no rival.
pub fn picture(figures: &[Figures], file: &Path) -> anyhow::Result<()> {
    const FONT: &str = "sans-serif";
    const LINE: u32 = 44;
    const NAMES: u32 = 390;
    let text = |size: i32, side: HPos| {
        let style = (FONT, size).into_font().color(&BLACK);
        style.pos(Pos::new(side, VPos::Center))
    };
    let verdicts = figures.iter().map(Figures::verdict);
    let verdicts = verdicts.collect::<anyhow::Result<Vec<_>>>()?;
    let gains = || verdicts.iter().flat_map(|verdict| &verdict.gains);
    let least = gains().map(|Gain { points, .. }| points.mean - points.half);
    let most = gains().map(|Gain { points, .. }| points.mean + points.half);
    let (least, most) = (least.fold(-1.0, f64::min), most.fold(1.0, f64::max));
    let size = (960, 110 + LINE * verdicts.len() as u32);
    let canvas = SVGBackend::new(file, size).into_drawing_area();
    canvas.fill(&WHITE)?;
    let edge = 0.05 * (most - least);
    let lines = verdicts.len() as f64;
    let mut chart = ChartBuilder::on(&canvas)
        .margin(12)
        .margin_bottom(30)
        .x_label_area_size(40)
        .y_label_area_size(NAMES)
        .build_cartesian_2d(least - edge..most + edge, lines..0.0)?;
    chart
        .configure_mesh()
        .disable_y_axis()
        .disable_y_mesh()
        .x_desc("points over the best rival")
        .x_label_formatter(&|points| format!("{points:.0}"))
        .axis_desc_style((FONT, 14))
        .label_style((FONT, 13))
        .light_line_style(WHITE)
        .draw()?;
    let zero = [(0.0, 0.0), (0.0, lines)];
    chart.draw_series([PathElement::new(zero, BLACK.stroke_width(1))])?;
    for (line, (figures, verdict)) in figures.iter().zip(&verdicts).enumerate() {
        let middle = line as f64 + 0.5;
        let left = chart.plotting_area().get_x_range().start;
        let (x, y) = chart.backend_coord(&(left, middle));
        let rival = format!("best rival: {}", verdict.rival);
        for (name, size, dy) in [(&figures.title, 14, -8), (&rival, 12, 8)] {
            canvas.draw(&Text::new(
                name.clone(),
                (x - 8, y + dy),
                text(size, HPos::Right),
            ))?;
        }
        for Gain { of, points, .. } in &verdict.gains {
            let Points { mean, half } = points;
            let y = middle + 0.2 * (*of as i32 - 1) as f64;
            let range = [(mean - half, y), (mean + half, y)];
            let colour = of.colour();
            chart.draw_series([PathElement::new(range, colour.stroke_width(2))])?;
            chart.draw_series([Circle::new((*mean, y), 4, colour.filled())])?;
        }
    }
    for of in Of::ALL {
        let at = (20 + 300 * of as i32, size.1 as i32 - 16);
        canvas.draw(&Circle::new(at, 4, of.colour().filled()))?;
        let name = Text::new(of.name(), (at.0 + 12, at.1), text(13, HPos::Left));
        canvas.draw(&name)?;
    }
    canvas.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(method: Method, rival: Option<Rival>, accuracies: [[f64; 2]; 2]) -> Row {
        let outcome = |[test_accuracy, chosen_test_accuracy]: [f64; 2]| Outcome {
            test_accuracy,
            chosen_test_accuracy,
            accuracies: Vec::new(),
            corrupted: Vec::new(),
            seconds: 1.0,
            flatness: None,
        };
        Row {
            method,
            rival,
            name: rival.map_or(method.name(), Rival::name).to_string(),
            setting: rival.map(|_| 0.5),
            outcomes: accuracies.map(outcome).to_vec(),
        }
    }

    fn figures() -> Figures {
        Figures {
            title: "perceptron, 40 % wrong labels".to_string(),
            rows: vec![
                row(Method::Sgd, None, [[0.6, 0.91], [0.7, 0.93]]),
                row(Method::Sgd, Some(Rival::Mixup), [[0.9, 0.88], [0.91, 0.89]]),
                row(Method::Sam, None, [[0.99, 0.99], [0.1, 0.99]]),
                row(Method::Auto, None, [[0.93, 0.92], [0.95, 0.94]]),
                row(
                    Method::Auto,
                    Some(Rival::Mixup),
                    [[0.97, 0.92], [0.97, 0.94]],
                ),
            ],
        }
    }

    #[test]
    fn the_best_rival_is_no_sam_and_may_stop_early() {
        let figures = figures();
        let verdict = figures.verdict().unwrap();
        assert_eq!(verdict.rival, "SGD, stopped early");
        // There is no row of two passes.
        let kinds: Vec<Of> = verdict.gains.iter().map(|gain| gain.of).collect();
        assert_eq!(kinds, [Of::OnePass, Of::Both]);
        let points: Vec<f64> = (verdict.gains.iter().map(|gain| gain.points.mean)).collect();
        assert!((points[0] - 2.0).abs() < 1e-9 && (points[1] - 5.0).abs() < 1e-9);
        assert!(verdict.gains[0].points.half < 1e-9);
        let line = "| perceptron, 40 % wrong labels | +29.0 ± 50.8 | +2.0 ± 0.0 | SGD, stopped early | +2.0 ± 0.0 |  | \
                    +5.0 ± 12.7 (mixup) |";
        let table = table(&[figures]).unwrap();
        assert_eq!(table.lines().last(), Some(line));
    }

    #[test]
    fn the_table_has_differences_and_the_dead() {
        let table = figures().table();
        let line = |name: &str| {
            let mut lines = table.lines();
            lines
                .find(|line| line.starts_with(name))
                .unwrap()
                .to_string()
        };
        assert!(
            line("| SGD").ends_with("| +29.0 ± 50.8 | +2.0 ± 0.0 |"),
            "{table}"
        );
        assert!(line("| mixup |").starts_with("| mixup | 0.5 | 90.5 ± 0.7 | 88.5 ± 0.7 |"));
        assert!(line("| SAM").contains("(1 died)"), "{table}");
    }

    #[test]
    fn one_seed_has_no_interval() {
        let mut figures = figures();
        for row in &mut figures.rows {
            row.outcomes.truncate(1);
        }
        let table = figures.table();
        assert!(table.contains("| +33.0 | +2.0 |"), "{table}");
        assert!(!table.contains("NaN"), "{table}");
    }

    #[test]
    fn accuracy_over_time_is_of_what_has_no_remedy() {
        let figures = figures();
        let panel = figures.panel(&[0.5, 0.75, 1.0]);
        let lines = panel.lines.iter().map(|line| (line.method, line.time));
        // There is no row of two passes.
        assert_eq!(
            lines.collect::<Vec<_>>(),
            [(Method::Sgd, 1.0), (Method::Auto, 1.5)]
        );
    }

    #[test]
    fn the_picture_names_tasks_and_rivals() {
        let file = tempfile::NamedTempFile::with_suffix(".svg").unwrap();
        picture(&[figures()], file.path()).unwrap();
        let svg = std::fs::read_to_string(file.path()).unwrap();
        for text in [
            "perceptron, 40 % wrong labels",
            "SGD, stopped early",
            "one pass",
        ] {
            assert!(svg.contains(text), "{text} in {svg}");
        }
    }
}
