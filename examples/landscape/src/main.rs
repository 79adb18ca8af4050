//! Two loss landscapes, side by side on one scale: where SGD ends, and where SAM does.

use std::path::PathBuf;

use anyhow::Context;
use burn::module::Module;
use burn::store::ModuleRecord;
use burn::tensor::Device;
use burn::train::InferenceStep;
use burn_sam::{Direction, Eigenvalue, Estimate, Flatness, LossSurface, Picture, SamConfig};
use clap::Parser;
use digits::data::{self, DigitBatch, Split};
use digits::model::{Mlp, seeded};
use digits::recipe::{Base, Recipe};
use digits::training::Setting;
use example_common::Backend;
use example_common::options::{absolute, create, part, progress_bar, radius};
use indicatif::ProgressBar;
use mimalloc::MiMalloc;

/// Passes on a CPU take as little as half of the time with it: see docs/guide.md.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

const NAMES: [&str; 2] = ["SGD", "SAM"];

/// Trains the network of the digits example with SGD and with SAM, measures how flat the loss on the
/// training images is around the weights of each, and draws it.
#[derive(Parser)]
struct Options {
    /// Part of the training labels that are replaced by random ones, 0 to 1
    #[arg(long, default_value = "0.4", allow_negative_numbers = true, value_parser = part)]
    noise: f64,
    /// Radius at which the sharpness is measured
    #[arg(long, default_value = "0.5", allow_negative_numbers = true, value_parser = radius)]
    rho: f64,
    /// Number of passes over the training images
    #[arg(long, default_value = "60", value_parser = clap::value_parser!(u32).range(1..))]
    epochs: u32,
    /// Decides the initial weights, the images, the wrong labels, the shuffles and the directions
    #[arg(long, default_value = "0")]
    seed: u64,
    /// Read the weights from two files, in place of training
    #[arg(long, num_args = 2, value_names = ["SGD", "SAM"])]
    load: Option<Vec<PathBuf>>,
    /// Write the weights to sgd.bpk and sam.bpk in this folder
    #[arg(long, value_name = "FOLDER")]
    save: Option<PathBuf>,
    /// How far to go from the weights, in filter norms
    #[arg(long, default_value = "1.0", value_parser = distance)]
    extent: f64,
    /// Points along each direction
    #[arg(long, default_value = "31", value_parser = clap::value_parser!(u32).range(2..))]
    points: u32,
    /// How to draw it
    #[arg(long, value_enum, default_value = "surfaces")]
    style: Style,
    /// Where to draw it: an .svg or .png file
    #[arg(long, value_name = "FILE", default_value = "landscape.svg")]
    picture: PathBuf,
    /// Where to write the measures and the losses, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where to compute
    #[arg(long, value_enum, default_value = "flex")]
    backend: Backend,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Style {
    /// Lines of the same loss, seen from above
    Contours,
    /// The loss as height, seen from the side
    Surfaces,
}

fn distance(text: &str) -> Result<f64, String> {
    match radius(text)? {
        0.0 => Err("must be above 0".to_string()),
        distance => Ok(distance),
    }
}

/// What is known of one network.
#[derive(serde::Serialize)]
struct Seen {
    name: &'static str,
    training_loss: f64,
    test_accuracy: f64,
    sharpness: f64,
    largest_eigenvalue: Eigenvalue,
    trace: Estimate,
    landscape: LossSurface,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let picture = &options.picture;
    anyhow::ensure!(
        picture
            .extension()
            .is_some_and(|e| e == "svg" || e == "png"),
        "{}: end the picture's name in .svg or .png",
        picture.display()
    );
    create([Some(picture), options.json.as_ref()])?;
    if let Some(folder) = &options.save {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let device = options.backend.device()?.autodiff();
    let split = data::split(data::digits()?, options.noise, options.seed);
    let models = match &options.load {
        Some(files) => load(files, &device)?,
        None => train(&options, &split, &device)?,
    };
    if let Some(folder) = &options.save {
        for (name, model) in NAMES.into_iter().zip(&models) {
            let file = folder.join(name.to_lowercase() + ".bpk");
            (model.clone().into_record().save(&file))
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
    }

    let points = u64::from(options.points);
    let bar = progress_bar("points", 2 * points * points);
    let mut seen = Vec::new();
    for (name, model) in NAMES.into_iter().zip(&models) {
        bar.set_message(format!("the loss around {name}"));
        seen.push(look(name, model, &split, &options, &bar)?);
    }
    bar.finish_and_clear();

    println!("{}", table(&seen, options.rho));
    let surfaces: Vec<_> = seen
        .iter()
        .map(|seen| (seen.name, &seen.landscape))
        .collect();
    let drawn = match options.style {
        Style::Contours => Picture::contours(&surfaces)?,
        Style::Surfaces => Picture::surfaces(&surfaces)?,
    };
    drawn.save(picture)?;
    println!("picture: {}", absolute(picture));
    if let Some(file) = &options.json {
        std::fs::write(file, serde_json::to_string(&seen)?)?;
        println!("figures: {}", absolute(file));
    }
    Ok(())
}

fn train(options: &Options, split: &Split, device: &Device) -> anyhow::Result<Vec<Mlp>> {
    let bar = progress_bar("epochs", 2 * u64::from(options.epochs));
    let setting = Setting {
        seed: options.seed,
        recipe: Recipe::new(Base::Sgd, options.epochs as usize),
        device: device.clone(),
        split,
        bar: &bar,
    };
    let model = seeded(Mlp::new, options.seed, device);
    let sam = SamConfig::auto_two_pass();
    let models = NAMES
        .into_iter()
        .zip([None, Some(&sam)])
        .map(|(name, sam)| {
            bar.set_message(format!("training with {name}"));
            Ok(setting.train(model.clone(), sam)?.model)
        });
    let models = models.collect();
    bar.finish_and_clear();
    models
}

fn load(files: &[PathBuf], device: &Device) -> anyhow::Result<Vec<Mlp>> {
    let load = |file: &PathBuf| {
        let record = ModuleRecord::load(file).with_context(|| file.display().to_string())?;
        let model = Mlp::new(device).try_load_record(record);
        model.with_context(|| format!("{} is not of this network", file.display()))
    };
    files.iter().map(load).collect()
}

fn look(
    name: &'static str,
    model: &Mlp,
    split: &Split,
    options: &Options,
    bar: &ProgressBar,
) -> anyhow::Result<Seen> {
    let device = model.devices()[0].clone();
    let [training, test] =
        [&split.train, &split.test].map(|digits| data::batches(digits, digits.len(), &device));
    let output = InferenceStep::step(&model.valid(), test[0].clone());
    let right = output
        .output
        .argmax(1)
        .flatten::<1>(0, 1)
        .equal(output.targets);
    let test_accuracy = right.float().mean().into_scalar::<f64>();

    let loss = |model: &Mlp, batch: &DigitBatch| InferenceStep::step(model, batch.clone()).loss;
    let flatness = Flatness::new(model, &training, loss)?;
    let along = |seed| {
        Direction::random(seed)
            .with_range(-options.extent, options.extent)
            .with_points(options.points as usize)
    };
    let sharpness = flatness.sharpness(&SamConfig::new().with_rho(options.rho))?;
    let largest_eigenvalue = flatness.eigenvalues(1, options.seed)?[0];
    let trace = flatness.trace(20, options.seed)?;
    let training_loss = flatness.loss()?;
    let flatness = flatness.with_progress(|_, _| bar.inc(1));
    let landscape = flatness.surface(&along(options.seed), &along(options.seed + 1))?;
    Ok(Seen {
        name,
        training_loss,
        test_accuracy,
        sharpness,
        largest_eigenvalue,
        trace,
        landscape,
    })
}

fn table(seen: &[Seen], rho: f64) -> String {
    let heads = [
        "train loss",
        "test accuracy",
        "sharpness",
        "largest eigenvalue",
        "trace",
    ];
    let mut table = format!("{:<8}", "method") + &heads.map(|head| format!("{head:>20}")).concat();
    for seen in seen {
        let Eigenvalue { value, residual } = seen.largest_eigenvalue;
        let Estimate {
            mean,
            standard_error,
        } = seen.trace;
        let cells = [
            format!("{:.4}", seen.training_loss),
            format!("{:.1} %", 100.0 * seen.test_accuracy),
            format!("{:.4}", seen.sharpness),
            format!("{value:.3} ± {residual:.3}"),
            format!("{mean:.1} ± {standard_error:.1}"),
        ];
        table += &format!("\n{:<8}", seen.name);
        table += &cells.map(|cell| format!("{cell:>20}")).concat();
    }
    table
        + &format!(
            "\n\nThe sharpness is at rho {rho}; after ± are a residual and a standard error."
        )
}
