//! The machine that decides what is computed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use burn::data::dataloader::{DataLoader, DataLoaderBuilder};
use burn::data::dataset::InMemDataset;
use burn::optim::AdamWConfig;
use burn::remote::RemoteHost;
use burn::tensor::Device;
use burn::train::checkpoint::KeepLastNCheckpoints;
use burn::train::metric::{AccuracyMetric, LossMetric};
use burn::train::{
    ExecutionStrategy, InferenceStep, Learner, MultiDeviceOptim, SupervisedTraining,
    TrainingStrategy,
};
use burn_sam::SharpnessMetric;
use digits::data::{self, Digit, DigitBatch, DigitBatcher, Split};
use digits::model::{ConvNet, Mlp, Network, seeded};
use example_common::options::{progress_bar, radius};
use example_common::{Method, ProgressRenderer};

/// Trains a convolutional network with batch normalization on handwritten digits, 40 % of them with a wrong label.
/// On several servers it is a perceptron: there, Burn 0.22.1 loses running statistics.
///
/// A training that was interrupted goes on after its last checkpoint: the same command, with --resume.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// A server: ws://ADDRESS:PORT. More than one, each after its own --server, share each step
    #[arg(long = "server", value_name = "URL", required = true)]
    servers: Vec<String>,
    /// The method
    #[arg(long, value_enum, default_value = "auto")]
    method: Method,
    /// The radius, of methods that have one
    #[arg(long, default_value = "0.05", allow_negative_numbers = true, value_parser = radius)]
    rho: f64,
    /// Passes over the 1000 training images
    #[arg(long, default_value = "10", value_parser = clap::value_parser!(u32).range(1..))]
    epochs: u32,
    /// Images a step, on each server
    #[arg(long, default_value = "64", value_parser = clap::value_parser!(u32).range(1..))]
    batch_size: u32,
    /// Decides the initial weights, the images and the wrong labels
    #[arg(long, default_value = "0")]
    seed: u64,
    /// Where Burn puts its logs and checkpoints
    #[arg(long, value_name = "FOLDER", default_value = "remote-training")]
    folder: PathBuf,
    /// Go on after the last epoch that has a checkpoint
    #[arg(long)]
    resume: bool,
}

const LEARNING_RATE: f64 = 3e-3;

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let done = options.done()?;
    let devices = (options.servers.iter())
        .map(|url| connect(url))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let split = data::split(data::digits()?, 0.4, options.seed);
    let accuracy = match devices.as_slice() {
        [_] => options.train(ConvNet::new, &split, &devices, done)?,
        // Without running statistics: see docs/remote.md.
        _ => options.train(Mlp::new, &split, &devices, done)?,
    };
    println!(
        "{}: {:.1} % of the test images",
        options.method.name(),
        100.0 * accuracy
    );
    Ok(())
}

fn connect(url: &str) -> anyhow::Result<Device> {
    let device = Device::remote_options(&RemoteHost::websocket(url)).init();
    Ok(device
        .with_context(|| format!("no device at {url}"))?
        .autodiff())
}

impl Options {
    /// Trains with the method, and returns the accuracy on the test images, from 0 to 1.
    fn train<M: Network>(
        &self,
        new: fn(&Device) -> M,
        split: &Split,
        devices: &[Device],
        done: Option<usize>,
    ) -> anyhow::Result<f64> {
        let network = seeded(new, self.seed, &devices[0]);
        let steps = self.epochs as usize * split.train.len().div_ceil(self.batch_size as usize);
        match self.method.config(self.rho, steps / 12) {
            None => self.launch(network, None, split, devices, done),
            Some(sam) => {
                // What in this program is SAM's: this line,
                let mut network = sam.init_on_part(network, DigitBatch::part);
                // and this metric. Neither knows where the network is.
                let sharpness = network.sharpness(|output| output.loss.clone());
                self.launch(network, Some(sharpness), split, devices, done)
            }
        }
    }

    /// Trains through Burn's Learner, and tests.
    fn launch<M: Network>(
        &self,
        model: M,
        sharpness: Option<SharpnessMetric>,
        split: &Split,
        devices: &[Device],
        done: Option<usize>,
    ) -> anyhow::Result<f64> {
        // In the order of the split: Burn begins the shuffles anew in a training that is resumed, which would then be
        // another one.
        let loader = |digits: &[Digit]| -> Arc<dyn DataLoader<DigitBatch>> {
            DataLoaderBuilder::new(DigitBatcher::default())
                .batch_size(self.batch_size as usize)
                .set_device(devices[0].clone())
                .build(InMemDataset::new(digits.to_vec()))
        };
        let bar = progress_bar("epochs", u64::from(self.epochs));
        bar.set_position(done.unwrap_or(0) as u64);
        let (renderer, _) = ProgressRenderer::new(bar, "Accuracy");
        let mut training =
            SupervisedTraining::new(&self.folder, loader(&split.train), loader(&split.valid))
                .metrics((AccuracyMetric::new(), LossMetric::new()))
                .num_epochs(self.epochs as usize)
                .with_default_checkpointers()
                .with_checkpointing_strategy(KeepLastNCheckpoints::new(2))
                .with_training_strategy(TrainingStrategy::Default(ExecutionStrategy::multi(
                    devices.to_vec(),
                    MultiDeviceOptim::OptimMainDevice,
                )))
                .renderer(Box::new(renderer));
        if let Some(sharpness) = sharpness {
            training = training.metric_train_numeric(sharpness);
        }
        if let Some(epoch) = done {
            training = training.checkpoint(epoch);
        }
        let learner = Learner::new(model, AdamWConfig::new().init(), LEARNING_RATE);
        // Burn tells of a server that is lost while a metric is read by an error, while a checkpoint is, by a panic.
        let result = catch_unwind(AssertUnwindSafe(|| training.launch(learner)));
        let model = match result.map(|result| (result.model, result.error)) {
            Ok((model, None)) => model,
            Ok((_, Some(error))) => bail!("the training stopped: {error}\n{}", self.how_to_go_on()),
            Err(_) => bail!("the training stopped\n{}", self.how_to_go_on()),
        };

        let mut right = 0;
        for batch in loader(&split.test).iter() {
            let output = InferenceStep::step(&model, batch?);
            let classes = output.output.argmax(1).flatten::<1>(0, 1);
            let hits = classes.equal(output.targets).int().sum();
            right += (hits.try_into_scalar::<i64>()).context("the test stopped")?;
        }
        Ok(right as f64 / split.test.len() as f64)
    }

    /// The epoch to go on after, in a folder that has no other training than this one.
    fn done(&self) -> anyhow::Result<Option<usize>> {
        let folder = &self.folder;
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        let file = folder.join("settings");
        let settings = format!(
            "method {:?}, rho {}, epochs {}, batch size {}, seed {}, servers {}",
            self.method,
            self.rho,
            self.epochs,
            self.batch_size,
            self.seed,
            self.servers.len()
        );
        let done = last_checkpoint(folder);
        match (self.resume, done) {
            (false, None) => std::fs::write(&file, settings)
                .with_context(|| format!("cannot write {}", file.display()))?,
            (false, Some(epoch)) => bail!(
                "{} has a training that came to epoch {epoch}: go on with --resume, or choose another --folder",
                folder.display()
            ),
            (true, None) => bail!("{} has no checkpoint to go on from", folder.display()),
            (true, Some(epoch)) => {
                let before = std::fs::read_to_string(&file)
                    .with_context(|| format!("cannot read {}", file.display()))?;
                if before != settings {
                    bail!(
                        "{} is a training with {before}, not {settings}",
                        folder.display()
                    );
                }
                if epoch == self.epochs as usize {
                    bail!("{} has all of its {epoch} epochs", folder.display());
                }
                eprintln!("goes on after epoch {epoch}");
            }
        }
        Ok(done)
    }

    fn how_to_go_on(&self) -> String {
        let servers = match self.servers.len() {
            1 => "Start the server again, if it is gone",
            _ => "Start all servers again, also those that are there",
        };
        match last_checkpoint(&self.folder) {
            Some(epoch) => {
                format!("{servers}; the same command with --resume goes on after epoch {epoch}")
            }
            None => format!("{servers}; there is no checkpoint yet, to go on from"),
        }
    }
}

/// The last epoch whose checkpoint has all of its files.
fn last_checkpoint(folder: &Path) -> Option<usize> {
    let folder = folder.join("checkpoint");
    let epoch_of = |file: &str| {
        file.strip_prefix("scheduler-")?
            .strip_suffix(".bpk")?
            .parse()
            .ok()
    };
    (std::fs::read_dir(&folder).ok()?)
        .filter_map(|file| epoch_of(file.ok()?.file_name().to_str()?))
        .filter(|epoch| {
            let there = |name| folder.join(format!("{name}-{epoch}.bpk")).exists();
            ["model", "optim"].into_iter().all(there)
        })
        .max()
}
