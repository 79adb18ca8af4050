//! Handwritten digits, some of their labels wrong: SGD beside SAM, through Burn's Learner.

mod report;

use std::io::IsTerminal;
use std::path::PathBuf;

use burn_sam::SamConfig;
use clap::Parser;
use digits::data;
use digits::model::{Mlp, seeded};
use digits::recipe::{Base, Recipe};
use digits::training::Setting;
use example_common::Backend;
use example_common::options::{absolute, create, fraction, part, progress_bar, radius};
use mimalloc::MiMalloc;

use crate::report::{Method, Run};

/// Passes on a CPU take as little as half of the time with it: see docs/guide.md.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Trains a network on handwritten digits, some of them with a wrong label, with SGD and with SAM,
/// from the same initial weights and in the same order, and compares the accuracy on clean images.
///
/// The network is a 64-256-256-10 perceptron; there are 1000 training and 597 test images, and 200 to
/// choose an epoch by, with as many wrong labels. SGD has a learning rate of 0.1, momentum 0.9 and batches of 64,
/// alone and under SAM.
#[derive(Parser)]
struct Options {
    /// Part of the training labels that are replaced by random ones, 0 to 1
    #[arg(long, default_value = "0.4", allow_negative_numbers = true, value_parser = part)]
    noise: f64,
    /// Radius of plain SAM's neighbourhood; if not given, SAM sets its radius itself
    #[arg(long, allow_negative_numbers = true, value_parser = radius)]
    rho: Option<f64>,
    /// Make the radius relative to each weight's magnitude (ASAM)
    #[arg(long)]
    adaptive: bool,
    /// Part of the batch that SAM climbs on, above 0 and up to 1
    #[arg(long, default_value = "1", allow_negative_numbers = true, value_parser = fraction)]
    ascent_fraction: f64,
    /// Number of passes over the training images
    #[arg(long, default_value = "60", value_parser = clap::value_parser!(u32).range(1..))]
    epochs: u32,
    /// Number of seeds: each has its own initial weights, images, wrong labels and shuffles
    #[arg(long, default_value = "3", value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// Where to train
    #[arg(long, value_enum, default_value = "flex")]
    backend: Backend,
    /// Where to draw the test accuracy over the epochs, as SVG
    #[arg(long, value_name = "FILE", default_value = "digits.svg")]
    picture: PathBuf,
    /// Where to write the figures of each run, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    create([Some(&options.picture), options.json.as_ref()])?;

    let sam = match options.rho {
        // One pass has none on part of the batch.
        None if options.ascent_fraction < 1.0 => SamConfig::auto_two_pass(),
        None => SamConfig::auto(),
        Some(rho) => SamConfig::new().with_rho(rho),
    };
    let sam = sam
        .with_adaptive(options.adaptive)
        .with_ascent_fraction(options.ascent_fraction);
    let digits = data::digits()?;
    let device = options.backend.device()?.autodiff();
    let epochs = options.epochs as usize;
    let bar = progress_bar(
        "epochs",
        options.seeds * Method::ALL.len() as u64 * u64::from(options.epochs),
    );

    let mut runs = Vec::new();
    for seed in 0..options.seeds {
        let model = seeded(Mlp::new, seed, &device);
        let split = data::split(digits.clone(), options.noise, seed);
        let setting = Setting {
            seed,
            recipe: Recipe::new(Base::Sgd, epochs),
            device: device.clone(),
            split: &split,
            bar: &bar,
        };
        for method in Method::ALL {
            bar.set_message(format!("{}, seed {seed}", method.name()));
            let sam = (method == Method::Sam).then_some(&sam);
            let trained = setting.train(model.clone(), sam)?.map(drop);
            let line = format!(
                "{} seed {seed}: test accuracy {:.1} % in {:.1} s",
                method.name(),
                100.0 * trained.test_accuracy(),
                trained.seconds
            );
            match std::io::stderr().is_terminal() {
                true => bar.println(line),
                false => eprintln!("{line}"),
            }
            runs.push(Run {
                method,
                seed,
                trained,
            });
        }
    }
    bar.finish_and_clear();

    println!(
        "Digits with {:.0} % noisy labels, {epochs} epochs, {} seeds, {}{}{}:\n",
        100.0 * options.noise,
        options.seeds,
        options
            .rho
            .map_or("a rho that sets itself".to_string(), |rho| format!(
                "rho {rho}"
            )),
        if options.adaptive { ", adaptive" } else { "" },
        match options.ascent_fraction {
            1.0 => String::new(),
            fraction => format!(", ascent on {fraction} of the batch"),
        },
    );
    println!("{}", report::table(&runs));
    if let Some(file) = &options.json {
        std::fs::write(file, serde_json::to_string_pretty(&report::json(&runs))?)?;
        println!("figures: {}", absolute(file));
    }
    let title = format!(
        "Digits with {:.0} % noisy labels: mean and range of {} seeds",
        100.0 * options.noise,
        options.seeds
    );
    report::picture(&runs, &title, &options.picture)?;
    println!("picture: {}", absolute(&options.picture));
    Ok(())
}
