//! SAM on MNIST, through Burn's Learner with its dashboard.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::bail;
use burn::data::dataloader::{DataLoader, DataLoaderBuilder};
use burn::data::dataset::InMemDataset;
use burn::optim::{AdamWConfig, ModuleOptimizer};
use burn::tensor::Device;
use burn::train::metric::{AccuracyMetric, LossMetric};
use burn::train::{
    ClassificationOutput, InferenceStep, Learner, LearnerModel, SupervisedTraining, TrainStep,
};
use burn_sam::SharpnessMetric;
use clap::Parser;
use example_common::options::{part, progress_bar, radius};
use example_common::{Backend, Method, ProgressRenderer};
use mimalloc::MiMalloc;
use mnist::data::{self, Mnist, MnistBatch, MnistBatcher, MnistItem, Split};
use mnist::model::Net;

/// Passes on a CPU take as little as half of the time with it: see docs/guide.md.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Trains a convolutional network on MNIST with AdamW, under SAM or another of its methods, and shows loss, accuracy
/// and sharpness in Burn's dashboard, with the feature dashboard.
///
/// The network has batch normalization and dropout, and 106,000 parameters. A fifth as many images as are trained on are
/// for validation; the accuracy that is printed in the end is on the 10,000 test images.
#[derive(Parser)]
struct Options {
    /// A folder with MNIST's four files, gzipped or not; without it Burn downloads them, with the feature download
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// The method
    #[arg(long, value_enum, default_value = "auto")]
    method: Method,
    /// The radius, of methods that have one
    #[arg(long, default_value = "0.05", allow_negative_numbers = true, value_parser = radius)]
    rho: f64,
    /// Images to train on
    #[arg(long, default_value = "50000")]
    images: usize,
    /// Part of the labels that are replaced by random ones, 0 to 1
    #[arg(long, default_value = "0", allow_negative_numbers = true, value_parser = part)]
    noise: f64,
    /// Number of passes over the training images
    #[arg(long, default_value = "5", value_parser = clap::value_parser!(u32).range(1..))]
    epochs: u32,
    /// Images a step
    #[arg(long, default_value = "64", value_parser = clap::value_parser!(u32).range(1..))]
    batch_size: u32,
    /// Decides the initial weights, the images, the wrong labels and the shuffles
    #[arg(long, default_value = "0")]
    seed: u64,
    /// Where to train
    #[arg(long, value_enum, default_value = "flex")]
    backend: Backend,
    /// Where Burn puts its logs and checkpoints
    #[arg(long, value_name = "FOLDER", default_value = "mnist-training")]
    folder: PathBuf,
}

const LEARNING_RATE: f64 = 1e-3;

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let mnist = data::load(options.data.as_deref())?;
    println!(
        "{}: {:.2} % of the test images",
        options.method.name(),
        100.0 * run(&mnist, &options)?
    );
    Ok(())
}

/// The accuracy on the test images, from 0 to 1.
fn run(mnist: &Mnist, options: &Options) -> anyhow::Result<f64> {
    let device = options.backend.device()?.autodiff();
    let split = data::split(mnist, options.images, options.noise, options.seed)?;
    let steps = options.epochs as usize * split.train.len().div_ceil(options.batch_size as usize);

    device.seed(options.seed);
    let model = Net::new(&device);
    match options.method.config(options.rho, steps / 12) {
        None => train(model, None, &split, options, &device),
        Some(sam) => {
            // What in this program is SAM's: this line,
            let mut model = sam.init_on_part(model, MnistBatch::part);
            // and this metric.
            let sharpness = model.sharpness(|output| output.loss.clone());
            train(model, Some(sharpness), &split, options, &device)
        }
    }
}

/// Trains through Burn's Learner, and returns the accuracy on the test images, from 0 to 1.
fn train<M>(
    model: M,
    sharpness: Option<SharpnessMetric>,
    split: &Split,
    options: &Options,
    device: &Device,
) -> anyhow::Result<f64>
where
    M: LearnerModel
        + TrainStep<Input = MnistBatch, Output = ClassificationOutput>
        + InferenceStep<Input = MnistBatch, Output = ClassificationOutput>,
{
    let loader = |items: &[MnistItem], shuffle: bool| -> Arc<dyn DataLoader<MnistBatch>> {
        let builder = DataLoaderBuilder::new(MnistBatcher)
            .batch_size(options.batch_size as usize)
            .set_device(device.clone());
        let builder = match shuffle {
            true => builder.shuffle(options.seed),
            false => builder,
        };
        builder.build(InMemDataset::new(items.to_vec()))
    };
    let optim: ModuleOptimizer = AdamWConfig::new().init();
    let mut training = SupervisedTraining::new(
        &options.folder,
        loader(&split.train, true),
        loader(&split.valid, false),
    )
    .metrics((AccuracyMetric::new(), LossMetric::new()))
    .num_epochs(options.epochs as usize)
    .summary();
    if let Some(sharpness) = sharpness {
        training = training.metric_train_numeric(sharpness);
    }
    if !std::io::stdout().is_terminal() {
        // Where there is no place for a dashboard.
        let bar = progress_bar("epochs", u64::from(options.epochs));
        let (renderer, _) = ProgressRenderer::new(bar, "Accuracy");
        training = training.renderer(Box::new(renderer));
    }
    let result = training.launch(Learner::new(model, optim, LEARNING_RATE));
    if let Some(error) = result.error {
        bail!("the training stopped: {error}");
    }

    let mut right = 0;
    let test = loader(&split.test, false);
    for batch in test.iter() {
        let output = InferenceStep::step(&result.model, batch?);
        let hits = output
            .output
            .argmax(1)
            .flatten::<1>(0, 1)
            .equal(output.targets);
        right += hits.int().sum().into_scalar::<i64>() as usize;
    }
    Ok(right as f64 / split.test.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_method_learns_what_is_easy() {
        // A bright row for each digit.
        let item = |at: usize| {
            let mut image = [[0.0; data::SIDE]; data::SIDE];
            image[2 * (at % 10) + 1] = [255.0; data::SIDE];
            let label = (at % 10) as u8;
            MnistItem { image, label }
        };
        let mnist = Mnist {
            train: (0..600).map(item).collect(),
            test: (0..50).map(item).collect(),
        };
        let folder = tempfile::tempdir().unwrap();
        for method in ["sgd", "auto", "msam", "eighth"] {
            let arguments = [
                "mnist", "--method", method, "--images", "500", "--epochs", "4",
            ];
            let options = Options {
                folder: folder.path().join(method),
                ..Options::parse_from(arguments)
            };
            let accuracy = run(&mnist, &options).unwrap();
            assert!(accuracy > 0.9, "{method}: {accuracy}");
        }
    }
}
