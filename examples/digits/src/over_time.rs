//! Accuracy over time: what a method reaches within what another one spends.

use std::path::Path;

use example_common::Method;
use plotters::prelude::*;

use crate::comparison::{Outcome, colour};

/// A panel of the picture.
pub struct Panel<'a> {
    /// Its title.
    pub title: &'a str,
    /// Its lines.
    pub lines: Vec<Line<'a>>,
}

/// A method's trainings.
pub struct Line<'a> {
    /// Which.
    pub method: Method,
    /// For readers.
    pub name: &'a str,
    /// Of a step, over the optimizer's.
    pub time: f64,
    /// A seed each, with accuracies of each epoch.
    pub outcomes: &'a [Outcome],
}

impl Line<'_> {
    /// The mean accuracy in % after each epoch, over the time spent, in the optimizer's epochs.
    fn points(&self) -> Vec<(f64, f64)> {
        let epochs = self.outcomes.iter().map(|outcome| outcome.accuracies.len());
        let seeds = self.outcomes.len() as f64;
        let mean = |epoch: usize| {
            let of = self
                .outcomes
                .iter()
                .map(|outcome| outcome.accuracies[epoch]);
            100.0 * of.sum::<f64>() / seeds
        };
        (0..epochs.min().unwrap_or(0))
            .map(|epoch| ((epoch + 1) as f64 * self.time, mean(epoch)))
            .collect()
    }
}

/// A panel each, side by side, over as much time as the optimizer spends.
///
/// # Errors
///
/// If it cannot be drawn.
pub fn picture(panels: &[Panel], file: &Path) -> anyhow::Result<()> {
    const FONT: &str = "sans-serif";
    let canvas = SVGBackend::new(file, (560 * panels.len() as u32, 420)).into_drawing_area();
    canvas.fill(&WHITE)?;
    for (area, panel) in canvas.split_evenly((1, panels.len())).iter().zip(panels) {
        let ends = |line: &Line| line.points().last().map_or(0.0, |(time, _)| *time);
        let base = panel.lines.iter().find(|line| line.method == Method::Sgd);
        let most = base.map_or(1.0, ends);
        let lines: Vec<(&Line, Vec<(f64, f64)>)> = (panel.lines.iter())
            .map(|line| (line, line.points()))
            .map(|(line, points)| {
                let within = points.into_iter().filter(|(time, _)| *time <= most * 1.001);
                (line, within.collect())
            })
            .collect();
        // The first epochs would leave no room for the rest.
        let later = (lines.iter().flat_map(|(_, points)| points))
            .filter(|(time, _)| *time >= most / 6.0)
            .map(|(_, accuracy)| *accuracy);
        let (least, best) = (
            later.clone().fold(100.0, f64::min),
            later.fold(0.0, f64::max),
        );
        let mut chart = ChartBuilder::on(area)
            .caption(panel.title, (FONT, 17))
            .margin(12)
            .x_label_area_size(42)
            .y_label_area_size(52)
            .build_cartesian_2d(0.0..most, least..best + 0.05 * (best - least))?;
        chart
            .configure_mesh()
            .x_desc("time, in epochs of the optimizer alone")
            .y_desc("test accuracy, %")
            .axis_desc_style((FONT, 14))
            .label_style((FONT, 13))
            .light_line_style(WHITE)
            .draw()?;
        for (line, points) in lines {
            let style = colour(line.method).stroke_width(2);
            let points = points
                .into_iter()
                .filter(|(_, accuracy)| *accuracy >= least);
            let drawn = match line.method {
                Method::Autotwopass => {
                    chart.draw_series(DashedLineSeries::new(points, 6, 4, style))?
                }
                _ => chart.draw_series(LineSeries::new(points, style))?,
            };
            drawn
                .label(line.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], style));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerRight)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.3))
            .label_font((FONT, 13))
            .draw()?;
    }
    canvas.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(accuracies: &[f64]) -> Outcome {
        Outcome {
            test_accuracy: 0.5,
            chosen_test_accuracy: 0.5,
            accuracies: accuracies.to_vec(),
            corrupted: Vec::new(),
            seconds: 1.0,
            flatness: None,
        }
    }

    #[test]
    fn what_takes_twice_as_long_has_half_the_epochs() {
        let outcomes = [outcome(&[0.5, 0.7]), outcome(&[0.7, 0.9])];
        let line = |method, time| Line {
            method,
            name: "a name",
            time,
            outcomes: &outcomes,
        };
        let points = line(Method::Auto, 2.0).points();
        assert_eq!(
            points.iter().map(|(x, _)| *x).collect::<Vec<_>>(),
            [2.0, 4.0]
        );
        assert!((points[1].1 - 80.0).abs() < 1e-9);

        let file = tempfile::NamedTempFile::with_suffix(".svg").unwrap();
        let lines = vec![line(Method::Sgd, 1.0), line(Method::Autotwopass, 2.0)];
        let panel = Panel {
            title: "a title",
            lines,
        };
        picture(&[panel], file.path()).unwrap();
        let svg = std::fs::read_to_string(file.path()).unwrap();
        assert!(svg.contains("a title") && svg.contains("a name"));
    }
}
