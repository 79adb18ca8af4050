//! How good the estimate is that the rule at one pass goes by.

use std::path::{Path, PathBuf};

use anyhow::Context;
use burn::data::dataloader::Progress;
use burn::tensor::Device;
use burn::train::metric::{Metric, MetricMetadata, Numeric};
use burn::train::{ClassificationOutput, InferenceStep, TrainStep};
use burn_sam::SamConfig;
use clap::Parser;
use digits::data::{self, DigitBatch, batches};
use digits::model::{ConvNet, Mlp, Network, seeded};
use digits::recipe::{Base, Recipe};
use digits::training::mean_and_deviation;
use example_common::Backend;
use example_common::options::{absolute, create, part, progress_bar};
use indicatif::ProgressBar;
use mimalloc::MiMalloc;
use plotters::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

/// Passes on a CPU take as little as half of the time with it: see docs/guide.md.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Trains two networks on digits by the rule at one pass and, at each step that climbs, takes the loss at w of the same
/// batch as well, which the rule does not: how far the loss has risen, in truth and by the estimate (1/2) <h, e>.
#[derive(Parser)]
struct Options {
    /// Part of the training labels that are replaced by random ones, 0 to 1
    #[arg(long, default_value = "0.4", allow_negative_numbers = true, value_parser = part)]
    noise: f64,
    /// The optimizer
    #[arg(long, value_enum, default_value = "sgd")]
    base: Base,
    /// Number of seeds
    #[arg(long, default_value = "5", value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// Number of passes over the training images; 60 for the perceptron and 20 for the convolutional network, if not
    /// given
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    epochs: Option<u32>,
    /// Where to draw the picture
    #[arg(long, value_name = "FILE.svg", default_value = "estimate.svg")]
    picture: PathBuf,
    /// Where to train
    #[arg(long, value_enum, default_value = "flex")]
    backend: Backend,
}

/// How far the loss has risen at a step, by the estimate and in truth.
#[derive(Clone, Copy)]
struct Rise {
    estimate: f64,
    truth: f64,
}

/// What came of a network: the rises of each seed's training.
struct Row {
    name: &'static str,
    trainings: Vec<Vec<Rise>>,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    create([Some(&options.picture)])?;
    let device = options.backend.device()?.autodiff();
    let bar = progress_bar("trainings", 2 * options.seeds);
    let rows = [
        row("perceptron", Mlp::new, 60, &options, &device, &bar)?,
        row(
            "convolutional network",
            ConvNet::new,
            20,
            &options,
            &device,
            &bar,
        )?,
    ];
    bar.finish_and_clear();
    println!(
        "{}, {:.0} % wrong labels, {} seeds\n",
        options.base.name(),
        100.0 * options.noise,
        options.seeds
    );
    println!("| network | part of the training | truth | estimate | correlation |");
    println!("| --- | --- | --- | --- | --- |");
    for row in &rows {
        for (part, name) in PARTS {
            println!("{}", line(row, part, name));
        }
    }
    picture(&rows, &options.picture)?;
    println!("\npicture: {}", absolute(&options.picture));
    Ok(())
}

/// Parts of a training, from 0 to 1, and their names.
const PARTS: [([f64; 2], &str); 3] = [
    ([0.0, 0.1], "first tenth"),
    ([0.1, 0.5], "to the half"),
    ([0.5, 1.0], "second half"),
];

fn row<M: Network>(
    name: &'static str,
    network: fn(&Device) -> M,
    epochs: u32,
    options: &Options,
    device: &Device,
    bar: &ProgressBar,
) -> anyhow::Result<Row> {
    let recipe = Recipe::new(options.base, options.epochs.unwrap_or(epochs) as usize);
    let digits = data::digits()?;
    let mut trainings = Vec::new();
    for seed in 0..options.seeds {
        bar.set_message(name);
        let train = data::split(digits.clone(), options.noise, seed).train;
        let mut rng = StdRng::seed_from_u64(seed);
        let epochs = (0..recipe.epochs).map(|_| {
            let mut train = train.clone();
            train.shuffle(&mut rng);
            batches(&train, recipe.batch_size, device)
        });
        let model = seeded(network, seed, device);
        trainings.push(rises(model, &recipe, epochs.flatten())?);
        bar.inc(1);
    }
    Ok(Row { name, trainings })
}

/// Of each step that climbs.
fn rises<M: Network>(
    network: M,
    recipe: &Recipe,
    batches: impl Iterator<Item = DigitBatch>,
) -> anyhow::Result<Vec<Rise>> {
    let mut model = SamConfig::auto().init(network);
    let mut estimates = model.sharpness(|output: &ClassificationOutput| output.loss.clone());
    let mut optim = recipe.optimizer();
    let mut rises = Vec::new();
    for batch in batches {
        let output = TrainStep::step(&model, batch.clone());
        estimates.update(&(), &of_a_training_step(recipe.learning_rate))?;
        if let Some(estimate) = Numeric::value(&estimates) {
            let at_w = InferenceStep::step(&*model, batch).loss;
            let [climbed, at_w] =
                [output.item.loss, at_w].map(|loss| loss.try_into_scalar::<f64>());
            rises.push(Rise {
                estimate: estimate.current(),
                truth: climbed? - at_w?,
            });
        }
        model = model.optimize(&mut optim, recipe.learning_rate.into(), output.grads);
    }
    Ok(rises)
}

fn of_a_training_step(lr: f64) -> MetricMetadata {
    MetricMetadata {
        progress: Progress {
            items_processed: 0,
            items_total: 1,
            unit: None,
        },
        iteration: None,
        lr: Some(lr.into()),
    }
}

/// Means over the seeds, with their deviations.
fn line(row: &Row, [from, to]: [f64; 2], part: &str) -> String {
    let trainings = row.trainings.iter().map(|rises| {
        let [from, to] = [from, to].map(|part| (part * rises.len() as f64) as usize);
        &rises[from..to]
    });
    let (mut truths, mut estimates, mut correlations) = (Vec::new(), Vec::new(), Vec::new());
    for rises in trainings {
        truths.push(mean(rises, |rise| rise.truth));
        estimates.push(mean(rises, |rise| rise.estimate));
        correlations.push(correlation(rises));
    }
    let [truth, estimate, correlation] = [truths, estimates, correlations].map(|values| {
        let (mean, deviation) = mean_and_deviation(&values);
        format!("{mean:.3} ± {deviation:.3}")
    });
    format!(
        "| {} | {part} | {truth} | {estimate} | {correlation} |",
        row.name
    )
}

fn mean(rises: &[Rise], of: impl Fn(&Rise) -> f64) -> f64 {
    rises.iter().map(of).sum::<f64>() / rises.len() as f64
}

/// Of the estimate with the truth.
fn correlation(rises: &[Rise]) -> f64 {
    let [a, b] = [
        mean(rises, |rise| rise.estimate),
        mean(rises, |rise| rise.truth),
    ];
    let product = |f: fn(f64, f64) -> f64| mean(rises, |rise| f(rise.estimate - a, rise.truth - b));
    product(|x, y| x * y) / (product(|x, _| x * x) * product(|_, y| y * y)).sqrt()
}

/// A panel a network: a point for each of some hundred steps of the first seed's training.
fn picture(rows: &[Row], file: &Path) -> anyhow::Result<()> {
    const FONT: &str = "sans-serif";
    const POINTS: usize = 400;
    let canvas = SVGBackend::new(file, (460 * rows.len() as u32, 460)).into_drawing_area();
    canvas.fill(&WHITE)?;
    for (panel, row) in canvas.split_evenly((1, rows.len())).iter().zip(rows) {
        let rises = row.trainings.first().context("at least one seed")?;
        let shown: Vec<Rise> = (rises.iter().copied())
            .step_by(rises.len().div_ceil(POINTS).max(1))
            .collect();
        let most = (shown.iter())
            .map(|rise| rise.truth.max(rise.estimate))
            .fold(1e-3, f64::max);
        let mut chart = ChartBuilder::on(panel)
            .caption(row.name, (FONT, 20))
            .margin(15)
            .x_label_area_size(45)
            .y_label_area_size(55)
            .build_cartesian_2d(0.0..most, 0.0..most)?;
        chart
            .configure_mesh()
            .x_desc("rise of the loss, in truth")
            .y_desc("by the estimate")
            .axis_desc_style((FONT, 16))
            .label_style((FONT, 14))
            .light_line_style(WHITE)
            .draw()?;
        chart.draw_series(LineSeries::new([(0.0, 0.0), (most, most)], BLACK.mix(0.5)))?;
        let colour = RGBColor(0, 114, 178).mix(0.4).filled();
        chart.draw_series(
            (shown.iter()).map(|rise| Circle::new((rise.truth, rise.estimate), 2, colour)),
        )?;
    }
    canvas.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rises(of: impl Fn(f64) -> f64) -> Vec<Rise> {
        let rise = |truth| Rise {
            estimate: of(truth),
            truth,
        };
        (0..20).map(|step| rise(f64::from(step) / 10.0)).collect()
    }

    #[test]
    fn what_agrees_correlates() {
        assert!((correlation(&rises(|truth| 0.5 * truth)) - 1.0).abs() < 1e-12);
        assert!((correlation(&rises(|truth| -truth)) + 1.0).abs() < 1e-12);
        let row = Row {
            name: "perceptron",
            trainings: vec![rises(|truth| truth), rises(|truth| truth + 0.2)],
        };
        let second_half = line(&row, [0.5, 1.0], "second half");
        let expected =
            "| perceptron | second half | 1.450 ± 0.000 | 1.550 ± 0.141 | 1.000 ± 0.000 |";
        assert_eq!(second_half, expected);
    }

    /// The estimate is the library's own.
    #[test]
    fn a_short_training_has_rises() {
        let options = Options::parse_from(["estimate", "--seeds", "1", "--epochs", "3"]);
        let device = Device::flex().autodiff();
        let row = row(
            "perceptron",
            Mlp::new,
            60,
            &options,
            &device,
            &ProgressBar::hidden(),
        )
        .unwrap();
        let rises = &row.trainings[0];
        // Of 48 steps, 21 stay at w.
        assert_eq!(rises.len(), 27);
        assert!(rises.iter().any(|rise| rise.truth > 1e-3));
        let file = tempfile::NamedTempFile::with_suffix(".svg").unwrap();
        picture(&[row], file.path()).unwrap();
        let svg = std::fs::read_to_string(file.path()).unwrap();
        assert!(svg.contains("rise of the loss, in truth") && svg.contains("<circle"));
    }
}
