//! Three networks that know nothing of SAM.

use std::sync::{Mutex, PoisonError};

use burn::module::{Module, ModuleDisplay, ModuleVisitor, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::transformer::{
    TransformerEncoder, TransformerEncoderConfig, TransformerEncoderInput,
};
use burn::nn::{BatchNorm, BatchNormConfig, Initializer, Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Int, Tensor};
use burn::train::{ClassificationOutput, InferenceStep, LearnerModel, TrainStep};

use crate::data::{CLASSES, DigitBatch, PIXELS, SIDE};

const HIDDEN: usize = 256;
const CHANNELS: usize = 16;
/// Of the transformer.
const WIDTH: usize = 64;

/// A network that classifies digits.
pub trait Network:
    LearnerModel
    + ModuleDisplay
    + TrainStep<Input = DigitBatch, Output = ClassificationOutput>
    + InferenceStep<Input = DigitBatch, Output = ClassificationOutput>
{
}

impl<M> Network for M where
    M: LearnerModel
        + ModuleDisplay
        + TrainStep<Input = DigitBatch, Output = ClassificationOutput>
        + InferenceStep<Input = DigitBatch, Output = ClassificationOutput>
{
}

/// A network with the initial weights of a seed, whatever other threads draw.
pub fn seeded<M: Module>(new: impl FnOnce(&Device) -> M, seed: u64, device: &Device) -> M {
    /// The generator is the device's, and so there is one for all threads.
    static GENERATOR: Mutex<()> = Mutex::new(());

    /// Burn draws a weight when it is first read.
    struct Read;

    impl ModuleVisitor for Read {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            param.val();
        }
    }

    let _alone = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
    device.seed(seed);
    let network = new(device);
    network.visit(&mut Read);
    network
}

/// A perceptron with two hidden layers.
#[derive(Module, Debug)]
pub struct Mlp {
    input: Linear,
    hidden: Linear,
    output: Linear,
}

impl Mlp {
    /// With random weights.
    pub fn new(device: &Device) -> Self {
        Self {
            input: LinearConfig::new(PIXELS, HIDDEN).init(device),
            hidden: LinearConfig::new(HIDDEN, HIDDEN).init(device),
            output: LinearConfig::new(HIDDEN, CLASSES).init(device),
        }
    }

    /// Logits, `[batch, CLASSES]`, of images, `[batch, PIXELS]`.
    fn forward(&self, images: Tensor<2>) -> Tensor<2> {
        let x = relu(self.input.forward(images));
        let x = relu(self.hidden.forward(x));
        self.output.forward(x)
    }
}

/// Two convolutions of 3 x 3, each with batch normalization: the first for 8 x 8 places, the second,
/// with a stride of 2, for 4 x 4.
#[derive(Module, Debug)]
pub struct ConvNet {
    input: Conv2d,
    input_norm: BatchNorm,
    hidden: Conv2d,
    hidden_norm: BatchNorm,
    output: Linear,
}

impl ConvNet {
    /// With random weights.
    pub fn new(device: &Device) -> Self {
        let convolution = |channels: [usize; 2]| {
            Conv2dConfig::new(channels, [3, 3])
                .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
                .with_bias(false)
        };
        Self {
            input: convolution([1, CHANNELS]).init(device),
            input_norm: BatchNormConfig::new(CHANNELS).init(device),
            hidden: convolution([CHANNELS, 2 * CHANNELS])
                .with_stride([2, 2])
                .init(device),
            hidden_norm: BatchNormConfig::new(2 * CHANNELS).init(device),
            output: LinearConfig::new(2 * CHANNELS * PIXELS / 4, CLASSES).init(device),
        }
    }

    /// Logits, `[batch, CLASSES]`, of images, `[batch, PIXELS]`.
    fn forward(&self, images: Tensor<2>) -> Tensor<2> {
        let [batch, _] = images.dims();
        let x = images.reshape([batch, 1, SIDE, SIDE]);
        let x = relu(self.input_norm.forward(self.input.forward(x)));
        let x = relu(self.hidden_norm.forward(self.hidden.forward(x)));
        self.output.forward(x.flatten(1, 3))
    }
}

/// A transformer that reads an image row by row: two layers, with four heads each.
#[derive(Module, Debug)]
pub struct Transformer {
    embedding: Linear,
    positions: Param<Tensor<2>>,
    encoder: TransformerEncoder,
    output: Linear,
}

impl Transformer {
    /// With random weights.
    pub fn new(device: &Device) -> Self {
        let positions = Initializer::Normal {
            mean: 0.0,
            std: 0.02,
        };
        Self {
            embedding: LinearConfig::new(SIDE, WIDTH).init(device),
            positions: positions.init([SIDE, WIDTH], device),
            encoder: TransformerEncoderConfig::new(WIDTH, 2 * WIDTH, 4, 2)
                .with_norm_first(true)
                .init(device),
            output: LinearConfig::new(WIDTH, CLASSES).init(device),
        }
    }

    /// Logits, `[batch, CLASSES]`, of images, `[batch, PIXELS]`.
    fn forward(&self, images: Tensor<2>) -> Tensor<2> {
        let [batch, _] = images.dims();
        let rows = self.embedding.forward(images.reshape([batch, SIDE, SIDE]));
        let rows = rows + self.positions.val().unsqueeze();
        let read = self.encoder.forward(TransformerEncoderInput::new(rows));
        self.output.forward(read.mean_dim(1).squeeze_dim(1))
    }
}

/// The loss of logits, `[batch, CLASSES]`, with what the batch has of smoothing and mixup: `[1]`.
pub fn cross_entropy(output: &Tensor<2>, batch: &DigitBatch) -> Tensor<1> {
    let loss = CrossEntropyLossConfig::new()
        .with_smoothing((batch.smoothing > 0.0).then_some(batch.smoothing))
        .init(&output.device());
    let of = |labels: &Tensor<1, Int>| loss.forward(output.clone(), labels.clone());
    match &batch.mixed {
        None => of(&batch.labels),
        Some(mixed) => of(&batch.labels) * (1.0 - mixed.share) + of(&mixed.labels) * mixed.share,
    }
}

/// Makes a [`Network`] of a module that has `forward(&self, images: Tensor<2>) -> Tensor<2>`, the logits.
#[macro_export]
macro_rules! classifies {
    ($model:ty) => {
        impl $model {
            fn classify(
                &self,
                batch: $crate::data::DigitBatch,
            ) -> ::burn::train::ClassificationOutput {
                let output = self.forward(batch.images.clone());
                let loss = $crate::model::cross_entropy(&output, &batch);
                ::burn::train::ClassificationOutput::new(loss, output, batch.labels)
            }
        }

        impl ::burn::train::TrainStep for $model {
            type Input = $crate::data::DigitBatch;
            type Output = ::burn::train::ClassificationOutput;

            fn step(&self, batch: Self::Input) -> ::burn::train::TrainOutput<Self::Output> {
                let item = self.classify(batch);
                ::burn::train::TrainOutput::new(self, item.loss.backward(), item)
            }
        }

        impl ::burn::train::InferenceStep for $model {
            type Input = $crate::data::DigitBatch;
            type Output = ::burn::train::ClassificationOutput;

            fn step(&self, batch: Self::Input) -> Self::Output {
                self.classify(batch)
            }
        }
    };
}

classifies!(Mlp);
classifies!(ConvNet);
classifies!(Transformer);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_s_weights_are_drawn_before_the_next_seed_s() {
        let device = Device::flex();
        let weights = |network: &Mlp| network.hidden.weight.val().into_data();
        let first = seeded(Mlp::new, 0, &device);
        let second = seeded(Mlp::new, 1, &device);
        assert_ne!(weights(&first), weights(&second));
        assert_eq!(weights(&first), weights(&seeded(Mlp::new, 0, &device)));
    }
}
