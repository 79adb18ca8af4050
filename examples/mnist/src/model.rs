//! A network that knows nothing of SAM.

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{
    BatchNorm, BatchNormConfig, Dropout, DropoutConfig, Linear, LinearConfig, PaddingConfig2d,
};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use burn::train::{ClassificationOutput, InferenceStep, TrainOutput, TrainStep};

use crate::data::{CLASSES, MnistBatch, SIDE};

const CHANNELS: usize = 16;
const HIDDEN: usize = 64;
/// Of the hidden layer.
pub const HIDDEN_INPUTS: usize = 2 * CHANNELS * (SIDE / 4).pow(2);

/// Two convolutions of 3 x 3 with a stride of 2, each with batch normalization; then a hidden layer, with dropout
/// before and after it.
#[derive(Module, Debug)]
pub struct Net {
    input: Conv2d,
    input_norm: BatchNorm,
    middle: Conv2d,
    middle_norm: BatchNorm,
    hidden: Linear,
    dropout: Dropout,
    output: Linear,
}

impl Net {
    /// With random weights.
    pub fn new(device: &Device) -> Self {
        let convolution = |channels: [usize; 2]| {
            Conv2dConfig::new(channels, [3, 3])
                .with_stride([2, 2])
                .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
                .with_bias(false)
        };
        Self {
            input: convolution([1, CHANNELS]).init(device),
            input_norm: BatchNormConfig::new(CHANNELS).init(device),
            middle: convolution([CHANNELS, 2 * CHANNELS]).init(device),
            middle_norm: BatchNormConfig::new(2 * CHANNELS).init(device),
            hidden: LinearConfig::new(HIDDEN_INPUTS, HIDDEN).init(device),
            dropout: DropoutConfig::new(0.25).init(),
            output: LinearConfig::new(HIDDEN, CLASSES).init(device),
        }
    }

    /// With a new output layer, for other classes.
    pub fn with_new_output(mut self) -> Self {
        let device = self.output.weight.device();
        self.output = LinearConfig::new(HIDDEN, CLASSES).init(&device);
        self
    }

    /// Logits, `[batch, CLASSES]`, of images, `[batch, SIDE, SIDE]`.
    pub fn forward(&self, images: Tensor<3>) -> Tensor<2> {
        let x = images.unsqueeze_dim(1);
        let x = relu(self.input_norm.forward(self.input.forward(x)));
        let x = relu(self.middle_norm.forward(self.middle.forward(x)));
        let x = self.dropout.forward(x.flatten(1, 3));
        let x = self.dropout.forward(relu(self.hidden.forward(x)));
        self.output.forward(x)
    }

    fn classify(&self, batch: MnistBatch) -> ClassificationOutput {
        let output = self.forward(batch.images);
        let loss = CrossEntropyLossConfig::new()
            .init(&output.device())
            .forward(output.clone(), batch.labels.clone());
        ClassificationOutput::new(loss, output, batch.labels)
    }
}

impl TrainStep for Net {
    type Input = MnistBatch;
    type Output = ClassificationOutput;

    fn step(&self, batch: MnistBatch) -> TrainOutput<ClassificationOutput> {
        let item = self.classify(batch);
        TrainOutput::new(self, item.loss.backward(), item)
    }
}

impl InferenceStep for Net {
    type Input = MnistBatch;
    type Output = ClassificationOutput;

    fn step(&self, batch: MnistBatch) -> ClassificationOutput {
        self.classify(batch)
    }
}
