//! A batch that cannot be passed twice.
//! expect: SAM takes two passes over each batch, but `Batch` is not `Clone`
//! expect: put `#[derive(Clone)]` on `Batch`
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use burn::train::{RegressionOutput, TrainOutput, TrainStep};
use burn_sam::SamConfig;
use user::Net;

#[derive(Module, Debug)]
struct Model {
    net: Net,
}

struct Batch(Tensor<2>);

impl TrainStep for Model {
    type Input = Batch;
    type Output = RegressionOutput;

    fn step(&self, Batch(x): Batch) -> TrainOutput<RegressionOutput> {
        let item = RegressionOutput::new(self.net.loss(&x), x.clone(), x);
        TrainOutput::new(self, item.loss.backward(), item)
    }
}

fn main() {
    let net = Net::new(&Device::flex().autodiff());
    SamConfig::new().init(Model { net });
}
