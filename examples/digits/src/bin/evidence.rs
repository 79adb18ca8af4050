//! What SAM and ASAM do, and what they do not, on digits: the table of docs/evidence.md.

use std::path::PathBuf;

use burn_sam::SamConfig;
use clap::Parser;
use digits::comparison::{
    Architecture, COLUMNS, Done, Job, Outcome, SHARPNESS_RHO, TUNING_SEEDS, Task, columns,
};
use digits::data;
use digits::training::Base;
use example_common::Backend;
use example_common::options::{create, part, progress_bar};
use mimalloc::MiMalloc;

/// Passes on a CPU take as little as half of the time with it: see docs/guide.md.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Trains networks on digits with SGD, SAM and ASAM, and prints a table of the accuracy on clean
/// images and of how flat the loss on the training images is: means and standard deviations.
///
/// Stopped early: the accuracy at the epoch that 200 validation images choose, whose labels are as noisy as the
/// training's.
///
/// SAM and ASAM have the radius that is best of a grid on as many other seeds.
#[derive(Parser)]
struct Options {
    /// The networks
    #[arg(long, value_enum, num_args = 1.., default_values = ["mlp", "conv"])]
    networks: Vec<Architecture>,
    /// Parts of the training labels that are replaced by random ones, 0 to 1
    #[arg(long, num_args = 1.., default_values = ["0", "0.2", "0.4", "0.6"], value_parser = part)]
    noise: Vec<f64>,
    /// Number of seeds: each has its own initial weights, images, wrong labels and shuffles
    #[arg(long, default_value = "10", value_parser = clap::value_parser!(u64).range(1..=TUNING_SEEDS))]
    seeds: u64,
    /// Number of passes over the training images
    #[arg(long, default_value = "60", value_parser = clap::value_parser!(u32).range(1..))]
    epochs: u32,
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

const RADII: [f64; 8] = [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8];
const ADAPTIVE_RADII: [f64; 8] = [0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0];

#[derive(serde::Serialize)]
struct Row {
    network: Architecture,
    noise: f64,
    method: &'static str,
    rho: Option<f64>,
    outcomes: Vec<Outcome>,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    create([options.json.as_ref()])?;
    let device = options.backend.device()?.autodiff();
    let digits = data::digits()?;
    let done = Done::open(options.resume.as_deref())?;
    let tables = options.networks.len() * options.noise.len();
    let trainings = tables * (RADII.len() + ADAPTIVE_RADII.len() + 3);
    let bar = progress_bar("trainings", trainings as u64 * options.seeds);

    let mut rows = Vec::new();
    for &architecture in &options.networks {
        for &noise in &options.noise {
            let name = format!("{architecture:?}, {:.0} % noise", 100.0 * noise);
            let task = Task {
                network: architecture.network(),
                split: &|seed| data::split(digits.clone(), noise, seed),
                epochs: options.epochs as usize,
                batch_size: 64,
                base: Base::Sgd,
                device: &device,
                name: name.clone(),
                done: &done,
            };
            let sam = |rho| SamConfig::new().with_rho(rho);
            let asam = |rho| sam(rho).with_adaptive(true);
            bar.set_message(format!("{name}: radii"));
            let rho = task.tune(&RADII, options.seeds, sam, &bar)?;
            let adaptive_rho = task.tune(&ADAPTIVE_RADII, options.seeds, asam, &bar)?;
            let methods = [
                ("SGD", None),
                ("SAM", Some((rho, sam(rho)))),
                ("ASAM", Some((adaptive_rho, asam(adaptive_rho)))),
            ];
            bar.set_message(name);
            for (method, sam) in methods {
                let jobs = Job::each(0..options.seeds, sam.as_ref().map(|(_, sam)| sam));
                rows.push(Row {
                    network: architecture,
                    noise,
                    method,
                    rho: sam.map(|(rho, _)| rho),
                    outcomes: task.run(&jobs, true, &bar)?,
                });
                bar.suspend(|| eprintln!("{}", line(&rows[rows.len() - 1])));
            }
        }
    }
    bar.finish_and_clear();

    println!(
        "{} epochs, {} seeds; the sharpness is at rho {SHARPNESS_RHO}\n",
        options.epochs, options.seeds
    );
    println!("| network | noisy labels | method | rho | {COLUMNS} |");
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    for row in &rows {
        println!("{}", line(row));
    }
    if let Some(file) = &options.json {
        std::fs::write(file, serde_json::to_string_pretty(&rows)?)?;
    }
    Ok(())
}

fn line(row: &Row) -> String {
    let network = match row.network {
        Architecture::Mlp => "perceptron",
        Architecture::Conv => "convolutional",
    };
    format!(
        "| {network} | {:.0} % | {} | {} | {} |",
        100.0 * row.noise,
        row.method,
        row.rho.map_or(String::new(), |rho| rho.to_string()),
        columns(&row.outcomes),
    )
}
