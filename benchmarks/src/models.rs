//! The models, each with a batch.

use burn::module::{Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::optim::GradientsParams;
use burn::tensor::activation::relu;
use burn::tensor::{Device, Distribution, Tensor};
use burn_sam::AscentPart;

/// The models that have passes.
pub const NAMES: [&str; 4] = ["mlp-64x30", "mlp-256x16", "mlp-1024x8", "conv-16x4"];

/// What is measured of a model.
pub trait Measurement {
    /// What has been measured.
    type Output;

    /// Of a module and its loss, for a part of the batch.
    fn of<M: Module>(self, module: M, loss: impl Fn(&M, AscentPart) -> Tensor<1>) -> Self::Output;
}

/// Measures one of the models of [`NAMES`].
///
/// # Panics
///
/// If there is none of this name.
pub fn with<T: Measurement>(name: &str, device: &Device, measurement: T) -> T::Output {
    let (width, layers, batch) = match name {
        "mlp-64x30" => (64, 30, 32),
        "mlp-256x16" => (256, 16, 64),
        "mlp-1024x8" => (1024, 8, 64),
        "conv-16x4" => {
            let x = Tensor::random([128, 16, 16, 16], Distribution::Default, device);
            let loss = |module: &ConvNet, part: AscentPart| module.loss(part.of(&x));
            return measurement.of(ConvNet::new(16, 4, device), loss);
        }
        name => panic!("there is no model called {name}: {NAMES:?}"),
    };
    let x = Tensor::random([batch, width], Distribution::Default, device);
    let loss = |module: &Mlp, part: AscentPart| module.loss(part.of(&x));
    measurement.of(Mlp::new(width, layers, device), loss)
}

/// Square layers with ReLUs between them.
#[derive(Module, Debug)]
pub struct Mlp {
    layers: Vec<Linear>,
}

impl Mlp {
    /// With random weights.
    pub fn new(width: usize, layers: usize, device: &Device) -> Self {
        Self {
            layers: (0..layers)
                .map(|_| LinearConfig::new(width, width).init(device))
                .collect(),
        }
    }

    /// Of a forward pass.
    pub fn loss(&self, x: Tensor<2>) -> Tensor<1> {
        let y = (self.layers.iter()).fold(x, |x, layer| relu(layer.forward(x)));
        y.square().mean()
    }
}

/// Convolutions of 3 x 3 that keep the image's size, each with batch normalization and a ReLU.
#[derive(Module, Debug)]
pub struct ConvNet {
    layers: Vec<(Conv2d, BatchNorm)>,
}

impl ConvNet {
    /// With random weights.
    pub fn new(channels: usize, layers: usize, device: &Device) -> Self {
        let layer = |_| {
            let convolution = Conv2dConfig::new([channels, channels], [3, 3])
                .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
                .with_bias(false)
                .init(device);
            (convolution, BatchNormConfig::new(channels).init(device))
        };
        Self {
            layers: (0..layers).map(layer).collect(),
        }
    }

    /// Of a forward pass.
    pub fn loss(&self, x: Tensor<4>) -> Tensor<1> {
        let y = (self.layers.iter()).fold(x, |x, (convolution, norm)| {
            relu(norm.forward(convolution.forward(x)))
        });
        y.square().mean()
    }
}

/// So many vectors of one length.
#[derive(Module, Debug)]
pub struct Vectors {
    vectors: Vec<Param<Tensor<1>>>,
}

impl Vectors {
    /// Of ones.
    pub fn new(count: usize, len: usize, device: &Device) -> Self {
        let vector = |_| Param::from_tensor(Tensor::ones([len], device));
        Self {
            vectors: (0..count).map(vector).collect(),
        }
    }

    /// Of all of them together.
    pub fn loss(&self) -> Tensor<1> {
        let vectors = self.vectors.iter().map(|vector| vector.val()).collect();
        Tensor::cat(vectors, 0).square().mean()
    }

    /// Gradients that are all one.
    pub fn gradients(&self) -> GradientsParams {
        self.registered(|vector| vector.ones_like())
    }

    /// Their values, as gradients of theirs.
    pub fn as_gradients(&self) -> GradientsParams {
        self.registered(|vector| vector)
    }

    fn registered(&self, gradient: impl Fn(Tensor<1>) -> Tensor<1>) -> GradientsParams {
        let mut grads = GradientsParams::new();
        for vector in &self.vectors {
            grads.register(vector.id, gradient(vector.val().inner()));
        }
        grads
    }
}

/// The parameters of a ResNet-50, by rank: 53 convolutions, 53 batch normalizations, one linear
/// layer.
#[derive(Module, Debug)]
pub struct ResNet50 {
    vectors: Vec<Param<Tensor<1>>>,
    matrix: Param<Tensor<2>>,
    convolutions: Vec<Param<Tensor<4>>>,
}

impl ResNet50 {
    /// With random values.
    pub fn new(device: &Device) -> Self {
        let mut shapes = vec![[64, 3, 7, 7]];
        let mut inputs = 64;
        for (width, blocks) in [(64, 3), (128, 4), (256, 6), (512, 3)] {
            for block in 0..blocks {
                shapes.push([width, inputs, 1, 1]);
                shapes.push([width, width, 3, 3]);
                shapes.push([4 * width, width, 1, 1]);
                if block == 0 {
                    shapes.push([4 * width, inputs, 1, 1]);
                }
                inputs = 4 * width;
            }
        }
        let norms = shapes.iter().flat_map(|shape| [shape[0], shape[0]]);
        Self {
            vectors: norms
                .chain([1000])
                .map(|len| param([len], device))
                .collect(),
            matrix: param([2048, 1000], device),
            convolutions: shapes.iter().map(|shape| param(*shape, device)).collect(),
        }
    }

    /// Gradients of random values.
    pub fn gradients(&self) -> GradientsParams {
        fn register<const D: usize>(param: &Param<Tensor<D>>, grads: &mut GradientsParams) {
            let device = param.val().device().inner();
            let shape = param.val().dims();
            grads.register(
                param.id,
                Tensor::<D>::random(shape, Distribution::Default, &device),
            );
        }
        let mut grads = GradientsParams::new();
        self.vectors
            .iter()
            .for_each(|param| register(param, &mut grads));
        register(&self.matrix, &mut grads);
        self.convolutions
            .iter()
            .for_each(|param| register(param, &mut grads));
        grads
    }
}

fn param<const D: usize>(shape: [usize; D], device: &Device) -> Param<Tensor<D>> {
    Param::from_tensor(Tensor::random(shape, Distribution::Default, device))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Size;

    impl Measurement for Size {
        type Output = (usize, usize);

        fn of<M: Module>(
            self,
            module: M,
            loss: impl Fn(&M, AscentPart) -> Tensor<1>,
        ) -> (usize, usize) {
            let part = burn_sam::SamConfig::new()
                .with_ascent_fraction(0.125)
                .ascent_part();
            let grads = GradientsParams::from_grads(loss(&module, part).backward(), &module);
            (module.num_params(), grads.len())
        }
    }

    #[test]
    fn each_name_is_a_model_s() {
        let device = Device::flex().autodiff();
        let sizes = NAMES.map(|name| with(name, &device, Size));
        let expected = [(124_800, 60), (1_052_672, 32), (8_396_800, 16), (9_472, 12)];
        assert_eq!(sizes, expected);
    }

    #[test]
    fn vectors_have_gradients_of_their_own() {
        let device = Device::flex().autodiff();
        let vectors = Vectors::new(3, 5, &device);
        assert_eq!(vectors.num_params(), 15);
        assert_eq!(vectors.gradients().len(), 3);
        let grads = GradientsParams::from_grads(vectors.loss().backward(), &vectors);
        assert_eq!(grads.len(), 3);
    }

    #[test]
    fn the_sizes_are_those_of_the_real_ones() {
        let device = Device::flex().autodiff();
        assert_eq!(Mlp::new(64, 30, &device).num_params(), 124_800);
        let x = Tensor::<4>::ones([1, 16, 4, 4], &device);
        let model = ConvNet::new(16, 2, &device);
        let grads = GradientsParams::from_grads(model.loss(x).backward(), &model);
        assert_eq!(grads.len(), 6);
        let resnet = ResNet50::new(&device);
        assert_eq!(resnet.num_params(), 25_557_032);
        assert_eq!(resnet.gradients().len(), 161);
    }
}
