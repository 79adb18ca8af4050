use burn::module::{Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::optim::GradientsParams;
use burn::tensor::activation::relu;
use burn::tensor::{Device, Distribution, Tensor};

/// Square layers with ReLUs between them.
#[derive(Module, Debug)]
pub(crate) struct Mlp {
    layers: Vec<Linear>,
}

impl Mlp {
    pub(crate) fn new(width: usize, layers: usize, device: &Device) -> Self {
        Self {
            layers: (0..layers)
                .map(|_| LinearConfig::new(width, width).init(device))
                .collect(),
        }
    }

    /// Of a forward pass.
    pub(crate) fn loss(&self, x: Tensor<2>) -> Tensor<1> {
        let y = (self.layers.iter()).fold(x, |x, layer| relu(layer.forward(x)));
        y.square().mean()
    }
}

/// Convolutions of 3 x 3 that keep the image's size, each with batch normalization and a ReLU.
#[derive(Module, Debug)]
pub(crate) struct ConvNet {
    layers: Vec<(Conv2d, BatchNorm)>,
}

impl ConvNet {
    pub(crate) fn new(channels: usize, layers: usize, device: &Device) -> Self {
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
    pub(crate) fn loss(&self, x: Tensor<4>) -> Tensor<1> {
        let y = (self.layers.iter()).fold(x, |x, (convolution, norm)| {
            relu(norm.forward(convolution.forward(x)))
        });
        y.square().mean()
    }
}

/// The parameters of a ResNet-50, by rank: 53 convolutions, 53 batch normalizations, one linear
/// layer.
#[derive(Module, Debug)]
pub(crate) struct ResNet50 {
    vectors: Vec<Param<Tensor<1>>>,
    matrix: Param<Tensor<2>>,
    convolutions: Vec<Param<Tensor<4>>>,
}

impl ResNet50 {
    pub(crate) fn new(device: &Device) -> Self {
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
    pub(crate) fn gradients(&self) -> GradientsParams {
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
