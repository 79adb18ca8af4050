use std::path::Path;

use digits::training::{Accuracies, Trained, mean_and_deviation};
use plotters::prelude::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Method {
    Sgd,
    Sam,
}

impl Method {
    pub(crate) const ALL: [Self; 2] = [Self::Sgd, Self::Sam];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sgd => "SGD",
            Self::Sam => "SAM",
        }
    }
}

/// One training, from the initial weights to the last epoch.
pub(crate) struct Run {
    pub(crate) method: Method,
    pub(crate) seed: u64,
    pub(crate) trained: Trained<()>,
}

fn of_method(runs: &[Run], method: Method) -> impl Iterator<Item = &Run> {
    runs.iter().filter(move |run| run.method == method)
}

/// A line a method: the test accuracy at the last epoch, and at the one that the validation images choose; the seconds
/// a run took.
pub(crate) fn table(runs: &[Run]) -> String {
    let mut table = format!(
        "{:<8}{:>18}{:>18}{:>16}\n",
        "method", "test accuracy", "stopped early", "seconds"
    );
    for method in Method::ALL {
        let cell = |of: fn(&Run) -> f64, unit: &str| {
            let values: Vec<f64> = of_method(runs, method).map(of).collect();
            let (mean, deviation) = mean_and_deviation(&values);
            format!("{mean:.1} ± {deviation:.1}{unit}")
        };
        table += &format!(
            "{:<8}{:>18}{:>18}{:>16}\n",
            method.name(),
            cell(|run| 100.0 * run.trained.test_accuracy(), " %"),
            cell(|run| 100.0 * run.trained.chosen_test_accuracy(), " %"),
            cell(|run| run.trained.seconds, ""),
        );
    }
    table
}

/// `{"runs": [{"method": "sgd", "seed": 0, "test_accuracy": 0.93, "seconds": 12.3}, ...]}`
pub(crate) fn json(runs: &[Run]) -> serde_json::Value {
    let runs: Vec<_> = (runs.iter())
        .map(|run| {
            serde_json::json!({
                "method": run.method,
                "seed": run.seed,
                "test_accuracy": run.trained.test_accuracy(),
                "chosen_test_accuracy": run.trained.chosen_test_accuracy(),
                "seconds": run.trained.seconds,
            })
        })
        .collect();
    serde_json::json!({ "runs": runs })
}

/// Draws the test accuracy over the epochs: the mean of the seeds, and the range between them.
pub(crate) fn picture(runs: &[Run], title: &str, file: &Path) -> anyhow::Result<()> {
    // Okabe and Ito's colours, which the colour-blind can tell apart.
    let colours = [RGBColor(213, 94, 0), RGBColor(0, 114, 178)];
    let epochs = runs.iter().map(|run| run.trained.accuracies.len()).max();
    let epochs = epochs.unwrap_or(1);
    let percent = |accuracies: &Accuracies| 100.0 * accuracies.test;
    let lowest = (runs.iter().flat_map(|run| &run.trained.accuracies))
        .map(percent)
        .fold(100.0, f64::min);
    let floor = (lowest / 10.0).floor() * 10.0;

    let canvas = SVGBackend::new(file, (800, 500)).into_drawing_area();
    canvas.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&canvas)
        .caption(title, ("sans-serif", 20))
        .margin(15)
        .margin_right(25)
        .x_label_area_size(45)
        .y_label_area_size(60)
        .build_cartesian_2d(1.0..(epochs as f64).max(2.0), floor..100.0)?;
    chart
        .configure_mesh()
        .x_desc("epoch")
        .y_desc("test accuracy, %")
        .x_label_formatter(&|epoch| format!("{epoch:.0}"))
        .y_label_formatter(&|accuracy| format!("{accuracy:.0}"))
        .axis_desc_style(("sans-serif", 16))
        .label_style(("sans-serif", 14))
        .light_line_style(WHITE)
        .draw()?;

    for (method, colour) in Method::ALL.into_iter().zip(colours) {
        let runs: Vec<&Run> = of_method(runs, method).collect();
        let at = |epoch: usize| {
            runs.iter()
                .map(move |run| percent(&run.trained.accuracies[epoch]))
        };
        let x = |epoch: usize| (epoch + 1) as f64;
        let upper = (0..epochs).map(|epoch| (x(epoch), at(epoch).fold(f64::MIN, f64::max)));
        let lower = (0..epochs).map(|epoch| (x(epoch), at(epoch).fold(f64::MAX, f64::min)));
        let range: Vec<_> = upper.chain(lower.rev()).collect();
        chart.draw_series([Polygon::new(range, colour.mix(0.2))])?;
        let mean = (0..epochs).map(|epoch| (x(epoch), at(epoch).sum::<f64>() / runs.len() as f64));
        chart
            .draw_series(LineSeries::new(mean, colour.stroke_width(2)))?
            .label(method.name())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .label_font(("sans-serif", 16))
        .draw()?;
    canvas.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs() -> Vec<Run> {
        let run = |method, seed, last| Run {
            method,
            seed,
            trained: Trained {
                model: (),
                accuracies: [0.5, last]
                    .map(|test| Accuracies { valid: 0.6, test })
                    .into(),
                seconds: 2.0,
            },
        };
        vec![
            run(Method::Sgd, 0, 0.6),
            run(Method::Sgd, 1, 0.7),
            run(Method::Sam, 0, 0.9),
            run(Method::Sam, 1, 0.9),
        ]
    }

    #[test]
    fn the_table_has_mean_and_spread() {
        let table = table(&runs());
        assert!(
            table.contains("SGD           65.0 ± 7.1 %      50.0 ± 0.0 %"),
            "{table}"
        );
        assert!(
            table.contains("SAM           90.0 ± 0.0 %      50.0 ± 0.0 %"),
            "{table}"
        );
    }

    #[test]
    fn the_json_has_every_run() {
        let json = json(&runs());
        assert_eq!(json["runs"].as_array().unwrap().len(), 4);
        assert_eq!(
            json["runs"][1],
            serde_json::json!({
                "method": "sgd",
                "seed": 1,
                "test_accuracy": 0.7,
                "chosen_test_accuracy": 0.5,
                "seconds": 2.0
            })
        );
    }

    #[test]
    fn the_picture_names_its_axes_and_lines() {
        let file = tempfile::NamedTempFile::with_suffix(".svg").unwrap();
        picture(&runs(), "digits", file.path()).unwrap();
        let svg = std::fs::read_to_string(file.path()).unwrap();
        for text in ["SGD", "SAM", "epoch", "test accuracy, %"] {
            assert!(svg.contains(text), "{text} in {svg}");
        }
    }
}
