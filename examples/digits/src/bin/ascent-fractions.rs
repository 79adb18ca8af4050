//! What it costs and what it keeps to climb on part of the batch: the tables of docs/methods/part-of-the-batch.md.

use std::path::PathBuf;

use burn_sam::SamConfig;
use clap::Parser;
use digits::comparison::{
    Architecture, Done, Look, Outcome, TUNING_SEEDS, Task, percents, stopped_early,
};
use digits::data;
use digits::recipe::{Base, Recipe};
use digits::training::mean_and_deviation;
use example_common::Backend;
use example_common::options::{create, part, progress_bar};
use mimalloc::MiMalloc;

/// Passes on a CPU take as little as half of the time with it: see docs/guide.md.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Trains a network on digits with SGD, with SAM, and with SAM that climbs on a half, a quarter, an
/// eighth and a sixteenth of the batch, and prints the accuracy on clean images, the time of a step
/// over SGD's beside the passes, and the part of SAM's gain that is kept, if the gain is more than its
/// standard error.
///
/// Each fraction has the radius that is best of ten, 0.1 to 1, on as many other seeds. A step's time is a median over steps that the methods take in turn, before the trainings.
#[derive(Parser)]
struct Options {
    /// The network
    #[arg(long, value_enum, default_value = "mlp")]
    network: Architecture,
    /// Part of the training labels that are replaced by random ones, 0 to 1
    #[arg(long, default_value = "0.4", allow_negative_numbers = true, value_parser = part)]
    noise: f64,
    /// Number of seeds: each has its own initial weights, images, wrong labels and shuffles
    #[arg(long, default_value = "10", value_parser = clap::value_parser!(u64).range(1..=TUNING_SEEDS))]
    seeds: u64,
    /// Number of passes over the training images
    #[arg(long, default_value = "60", value_parser = clap::value_parser!(u32).range(1..))]
    epochs: u32,
    /// Images a step
    #[arg(long, default_value = "64", value_parser = clap::value_parser!(u32).range(1..))]
    batch_size: u32,
    /// Where to write the figures of each run, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where to keep each training's figures, so that a run that was stopped goes on from there
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
    /// Where to train
    #[arg(long, value_enum, default_value = "flex")]
    backend: Backend,
}

const RADII: [f64; 10] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0];
const FRACTIONS: [(&str, f64); 5] = [
    ("the whole batch (SAM)", 1.0),
    ("a half", 0.5),
    ("a quarter", 0.25),
    ("an eighth", 0.125),
    ("a sixteenth", 0.0625),
];

#[derive(serde::Serialize)]
struct Row {
    climbs_on: &'static str,
    rho: Option<f64>,
    passes: f64,
    step_seconds: f64,
    outcomes: Vec<Outcome>,
}

impl Row {
    fn accuracy(&self) -> (f64, f64) {
        let accuracies = self.outcomes.iter().map(|o| 100.0 * o.test_accuracy);
        mean_and_deviation(&accuracies.collect::<Vec<_>>())
    }
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    create([options.json.as_ref()])?;
    let device = options.backend.device()?.autodiff();
    let digits = data::digits()?;
    let done = Done::open(options.resume.as_deref())?;
    let task = Task {
        network: options.network.network(),
        split: &|seed| data::split(digits.clone(), options.noise, seed),
        recipe: Recipe {
            batch_size: options.batch_size as usize,
            ..Recipe::new(Base::Sgd, options.epochs as usize)
        },
        device: &device,
        name: format!("{}, noise {}", options.network.name(), options.noise),
        corruptions: &[],
        done: &done,
    };
    let sam = |fraction: f64| {
        move |rho| {
            SamConfig::new()
                .with_rho(rho)
                .with_ascent_fraction(fraction)
        }
    };

    let timed: Vec<_> = std::iter::once(None)
        .chain(FRACTIONS.map(|(_, fraction)| Some(sam(fraction)(RADII[0]))))
        .collect();
    let step_seconds = task.step_seconds(&timed)?;

    let trainings = 1 + FRACTIONS.len() * (RADII.len() + 1);
    let bar = progress_bar("trainings", trainings as u64 * options.seeds);
    let train = |sam: Option<SamConfig>| {
        let jobs = task.jobs(0..options.seeds, sam.as_ref());
        task.run(&jobs, Look::Epochs, &bar)
    };
    bar.set_message("SGD");
    let mut rows = vec![Row {
        climbs_on: "nothing (SGD)",
        rho: None,
        passes: 1.0,
        step_seconds: step_seconds[0],
        outcomes: train(None)?,
    }];
    for ((climbs_on, fraction), step_seconds) in FRACTIONS.into_iter().zip(&step_seconds[1..]) {
        bar.set_message(climbs_on);
        let with = |rho| (task.recipe, Some(sam(fraction)(rho)));
        let rho = task.tune(&RADII, options.seeds, with, &bar)?;
        rows.push(Row {
            climbs_on,
            rho: Some(rho),
            passes: 1.0 + fraction,
            step_seconds: *step_seconds,
            outcomes: train(Some(sam(fraction)(rho)))?,
        });
    }
    bar.finish_and_clear();

    println!(
        "{:?}, {:.0} % noisy labels, batches of {}, {} epochs, {} seeds\n",
        options.network,
        100.0 * options.noise,
        options.batch_size,
        options.epochs,
        options.seeds
    );
    println!(
        "| ascent on | rho | test accuracy, % | stopped early | passes | time of a step | part of the gain |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    let [(sgd, sgd_deviation), (whole, deviation)] = [rows[0].accuracy(), rows[1].accuracy()];
    let gain = whole - sgd;
    let standard_error = sgd_deviation.hypot(deviation) / (options.seeds as f64).sqrt();
    for row in &rows {
        let (mean, deviation) = row.accuracy();
        println!(
            "| {} | {} | {mean:.1} ± {deviation:.1} | {} | {} | {:.2} | {} |",
            row.climbs_on,
            row.rho.map_or(String::new(), |rho| rho.to_string()),
            percents(stopped_early(&row.outcomes)),
            row.passes,
            row.step_seconds / rows[0].step_seconds,
            match gain > standard_error {
                true => format!("{:.2}", (mean - sgd) / gain),
                false => "-".to_string(),
            },
        );
    }
    if let Some(file) = &options.json {
        std::fs::write(file, serde_json::to_string_pretty(&rows)?)?;
    }
    Ok(())
}
