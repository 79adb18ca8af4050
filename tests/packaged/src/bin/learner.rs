use std::sync::Arc;

use burn::data::dataloader::batcher::Batcher;
use burn::data::dataloader::{DataLoader, DataLoaderBuilder};
use burn::data::dataset::InMemDataset;
use burn::module::Module;
use burn::optim::SgdConfig;
use burn::tensor::{Device, Tensor};
use burn::train::metric::LossMetric;
use burn::train::renderer::CliMetricsRenderer;
use burn::train::{
    InferenceStep, Learner, RegressionOutput, SupervisedTraining, TrainOutput, TrainStep,
};
use burn_sam::{Direction, Flatness, Picture, SamConfig};
use user::Net;

#[derive(Module, Debug)]
struct Model {
    net: Net,
}

#[derive(Clone, Debug)]
struct Batch(Tensor<2>);

struct Batches;

impl Batcher<f32, Batch> for Batches {
    fn batch(&self, items: Vec<f32>, device: &Device) -> Batch {
        Batch(user::batch(device) + items[0])
    }
}

impl Model {
    fn output(&self, Batch(x): Batch) -> RegressionOutput {
        RegressionOutput::new(self.net.loss(&x), x.clone(), x)
    }
}

impl TrainStep for Model {
    type Input = Batch;
    type Output = RegressionOutput;

    fn step(&self, batch: Batch) -> TrainOutput<RegressionOutput> {
        let item = self.output(batch);
        TrainOutput::new(self, item.loss.backward(), item)
    }
}

impl InferenceStep for Model {
    type Input = Batch;
    type Output = RegressionOutput;

    fn step(&self, batch: Batch) -> RegressionOutput {
        self.output(batch)
    }
}

fn main() {
    let device = Device::flex().autodiff();
    let model = Model {
        net: Net::new(&device),
    };
    let batch = user::batch(&device);
    let before = model.net.loss(&batch).into_scalar::<f32>();

    let directory = std::env::temp_dir().join(format!("burn-sam-user-{}", std::process::id()));
    let loader = || -> Arc<dyn DataLoader<Batch>> {
        DataLoaderBuilder::new(Batches)
            .batch_size(1)
            .set_device(device.clone())
            .build(InMemDataset::new(vec![0.0; 20]))
    };
    let mut model = SamConfig::new().init(model);
    let sharpness = model.sharpness(|output: &RegressionOutput| output.loss.clone());
    let learner = Learner::new(model, SgdConfig::new().init(), 0.05);
    let result = SupervisedTraining::new(&directory, loader(), loader())
        .metrics((LossMetric::new(), sharpness))
        .renderer(Box::new(CliMetricsRenderer::new()))
        .num_epochs(1)
        .launch(learner);
    assert!(result.error.is_none(), "{:?}", result.error);
    let after = result.model.net.loss(&batch).into_scalar::<f32>();
    assert!(after < before / 2.0, "{before} -> {after}");

    let model = result.model.into_inner().train();
    let batches = [batch];
    let loss = |model: &Model, batch: &Tensor<2>| model.net.loss(batch);
    let flatness = Flatness::new(&model, &batches, loss).expect("a trainable model");
    let along = Direction::random(0).with_points(5);
    let curve = flatness.curve(&along).expect("a curve");
    let picture = Picture::curves(&[("SAM", &curve)]).expect("a picture");
    picture.save(directory.join("curve.png")).expect("a file");
    std::fs::remove_dir_all(directory).expect("its folder");
    println!("loss {before} -> {after}");
}
