//! Accuracies side by side.

use std::path::Path;

use digits::comparison::{Outcome, colour};
use digits::training::mean_and_deviation;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::{Figures, Row};

const FONT: &str = "sans-serif";
const WIDTH: u32 = 560;
/// Where the names of the methods are.
const MARGIN: u32 = 170;

/// A panel for each of some figures, two side by side, and a line in it for each method: a disc at the accuracy after
/// the last epoch, with its deviation, and a circle at that of the epoch which the validation images choose.
pub(crate) fn draw(figures: &[Figures], file: &Path) -> anyhow::Result<()> {
    let columns = figures.len().clamp(1, 2);
    let rows = figures.len().div_ceil(columns);
    let most = figures.iter().map(|figures| figures.rows.len()).max();
    let height = 90 + 26 * most.unwrap_or(1) as u32;
    let size = (WIDTH * columns as u32, height * rows as u32 + 34);
    let canvas = SVGBackend::new(file, size).into_drawing_area();
    canvas.fill(&WHITE)?;
    let (panels, legend) = canvas.split_vertically(height * rows as u32);
    for (panel, figures) in panels.split_evenly((rows, columns)).iter().zip(figures) {
        draw_panel(panel, figures)?;
    }
    draw_legend(&legend)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn draw_panel(panel: &Area, figures: &Figures) -> anyhow::Result<()> {
    let drawn = figures.rows.iter().flat_map(|row| {
        let (mean, deviation) = last_epoch(row);
        [mean - deviation, mean + deviation, stopped_early(row)]
    });
    let lowest = drawn.clone().fold(100.0, f64::min);
    let highest = drawn.fold(0.0, f64::max);
    let edge = 0.06 * (highest - lowest).max(1.0);
    let digits = usize::from(highest - lowest < 5.0);
    let lines = figures.rows.len() as f64;
    let mut chart = ChartBuilder::on(panel)
        .caption(&figures.title, (FONT, 17))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(MARGIN)
        .build_cartesian_2d(lowest - edge..highest + edge, lines..0.0)?;
    chart
        .configure_mesh()
        .disable_y_axis()
        .disable_y_mesh()
        .x_desc("test accuracy, %")
        .x_labels(8)
        .x_label_formatter(&|accuracy| format!("{accuracy:.digits$}"))
        .axis_desc_style((FONT, 14))
        .label_style((FONT, 13))
        .light_line_style(WHITE)
        .draw()?;
    for (line, row) in figures.rows.iter().enumerate() {
        let y = line as f64 + 0.5;
        let colour = colour(row.method);
        let (mean, deviation) = last_epoch(row);
        let range = [(mean - deviation, y), (mean + deviation, y)];
        chart.draw_series([PathElement::new(range, colour.stroke_width(2))])?;
        chart.draw_series([Circle::new((mean, y), 5, colour.filled())])?;
        chart.draw_series([Circle::new(
            (stopped_early(row), y),
            5,
            colour.stroke_width(2),
        )])?;
        let style = (FONT, 14).into_font().color(&colour);
        let style = style.pos(Pos::new(HPos::Right, VPos::Center));
        let left = chart.plotting_area().get_x_range().start;
        let at = chart.backend_coord(&(left, y));
        let corner = panel.get_base_pixel();
        let at = (at.0 - corner.0 - 8, at.1 - corner.1);
        panel.draw(&Text::new(row.name.clone(), at, style))?;
    }
    Ok(())
}

fn draw_legend(legend: &Area) -> anyhow::Result<()> {
    let style = (FONT, 14).into_font().color(&BLACK);
    let style = style.pos(Pos::new(HPos::Left, VPos::Center));
    for (x, filled, text) in [
        (
            MARGIN as i32,
            true,
            "after the last epoch, and its deviation",
        ),
        (MARGIN as i32 + 280, false, "stopped early"),
    ] {
        let shape = if filled {
            BLACK.filled()
        } else {
            BLACK.stroke_width(2)
        };
        legend.draw(&Circle::new((x, 12), 5, shape))?;
        legend.draw(&Text::new(text, (x + 12, 12), style.clone()))?;
    }
    Ok(())
}

/// Mean and deviation.
fn last_epoch(row: &Row) -> (f64, f64) {
    percent(row, |outcome| outcome.test_accuracy)
}

fn stopped_early(row: &Row) -> f64 {
    percent(row, |outcome| outcome.chosen_test_accuracy).0
}

fn percent(row: &Row, of: fn(&Outcome) -> f64) -> (f64, f64) {
    let values = row.outcomes.iter().map(|outcome| 100.0 * of(outcome));
    mean_and_deviation(&values.collect::<Vec<_>>())
}
