//! The Learner's model by reference.
//! expect: `&Model` is not a model that `SamConfig::init` can wrap
//! expect: give it the model by value, `init(model)`, not `init(&model)`
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use burn::train::{RegressionOutput, TrainOutput, TrainStep};
use burn_sam::SamConfig;
use user::Net;

#[derive(Module, Debug)]
struct Model {
    net: Net,
}

impl TrainStep for Model {
    type Input = Tensor<2>;
    type Output = RegressionOutput;

    fn step(&self, x: Tensor<2>) -> TrainOutput<RegressionOutput> {
        let item = RegressionOutput::new(self.net.loss(&x), x.clone(), x);
        TrainOutput::new(self, item.loss.backward(), item)
    }
}

fn main() {
    let net = Net::new(&Device::flex().autodiff());
    SamConfig::new().init(&Model { net });
}
