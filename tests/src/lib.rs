//! What the integration tests share: the devices to test on, and small modules.

mod learner;
mod warnings;

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::nn::loss::{MseLoss, Reduction};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig};
use burn::optim::GradientsParams;
use burn::tensor::activation::tanh;
use burn::tensor::{DType, Device, Tensor, TensorData};
use burn::train::{InferenceStep, RegressionOutput, TrainOutput, TrainStep};
use burn_sam::{AscentPart, Descent, Radius, SamConfig};
use example_common::Backend;
pub use learner::{Learns, train};
use proptest::test_runner::{Config as ProptestConfig, RngSeed};
pub use warnings::warnings;

/// The CPU devices, without autodiff.
pub fn cpu_devices() -> Vec<Device> {
    [Backend::Flex, Backend::Ndarray]
        .map(|backend| backend.device().expect("a CPU"))
        .into()
}

/// The CPU devices, with the feature `libtorch` LibTorch's too and, where the feature `wgpu` is on and the machine has
/// one, a wgpu device, without autodiff.
///
/// # Panics
///
/// If the environment variable `BURN_SAM_REQUIRE_WGPU` is set and there is no wgpu device, so that
/// a CI that should test on one cannot skip it.
pub fn devices() -> Vec<Device> {
    let mut devices = cpu_devices();
    // Burn deprecates it; until it is gone, it is tried.
    #[cfg(feature = "libtorch")]
    #[allow(deprecated)]
    devices.push(Device::libtorch());
    devices.extend(wgpu_device());
    devices
}

/// The wgpu device, as for [`devices`].
pub fn wgpu_device() -> Option<Device> {
    let device = Backend::Wgpu.device().ok();
    assert!(
        device.is_some() || std::env::var_os("BURN_SAM_REQUIRE_WGPU").is_none(),
        "BURN_SAM_REQUIRE_WGPU is set, but there is no wgpu device"
    );
    device
}

/// A batch of a regression: inputs `[batch, FEATURES]` and targets `[batch, 1]`.
#[derive(Clone, Debug)]
pub struct Points {
    /// `[batch, FEATURES]`
    pub x: Tensor<2>,
    /// `[batch, 1]`
    pub y: Tensor<2>,
}

/// Of a [`Points`]' inputs.
pub const FEATURES: usize = 3;

impl Points {
    /// Eight points that `seed` decides.
    pub fn new(seed: u64, device: &Device) -> Self {
        let x = pseudo_random(seed, 8 * FEATURES);
        let y = pseudo_random(seed + 1, 8);
        Self {
            x: Tensor::from_data(TensorData::new(x, [8, FEATURES]), device),
            y: Tensor::from_data(TensorData::new(y, [8, 1]), device),
        }
    }

    /// What SAM climbs on, if that is not the whole batch.
    pub fn part(&self, part: AscentPart) -> Self {
        Self {
            x: part.of(&self.x),
            y: part.of(&self.y),
        }
    }
}

/// LookSAM whose rho sets itself at the steps that climb.
pub fn auto_looksam() -> SamConfig {
    SamConfig::looksam()
        .with_radius(Radius::Rule { rise: 0.3 })
        .with_descent(Descent::Limited)
}

/// So many cases of a property test, the same in each run.
pub fn random_cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        rng_seed: RngSeed::Fixed(20101412),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// Values from -1 to 1, the same on every device.
pub fn pseudo_random(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

/// A perceptron for [`Points`].
#[derive(Module, Debug)]
pub struct Mlp {
    /// `[FEATURES, 8]`
    pub hidden: Linear,
    /// `[8, 1]`
    pub output: Linear,
}

impl Mlp {
    /// Weights that `seed` decides, the same on every device.
    pub fn new(seed: u64, device: &Device) -> Self {
        Self {
            hidden: linear(seed, FEATURES, 8, device),
            output: linear(seed + 1, 8, 1, device),
        }
    }

    /// The mean squared error.
    pub fn loss(&self, points: &Points) -> Tensor<1> {
        TrainingModel::predict(self, points).loss
    }

    /// The gradients of the loss.
    pub fn gradients(&self, points: &Points) -> GradientsParams {
        GradientsParams::from_grads(self.loss(points).backward(), self)
    }

    /// The same, one value after the other.
    pub fn flat_gradients(&self, points: &Points) -> Vec<f64> {
        let grads = self.gradients(points);
        let mut flat = Vec::new();
        for layer in [&self.hidden, &self.output] {
            let weight = grads.get::<2>(layer.weight.id).expect("a gradient");
            let bias = grads.get::<1>(layer.bias.as_ref().expect("a bias").id);
            flat.extend(read(weight));
            flat.extend(read(bias.expect("a gradient")));
        }
        flat.into_iter().map(f64::from).collect()
    }
}

/// A linear layer with weights that `seed` decides, the same on every device.
pub fn linear(seed: u64, inputs: usize, outputs: usize, device: &Device) -> Linear {
    let weight = TensorData::new(pseudo_random(seed, inputs * outputs), [inputs, outputs]);
    let bias = TensorData::new(pseudo_random(seed + 100, outputs), [outputs]);
    let layer = LinearConfig::new(inputs, outputs).init(device);
    Linear {
        weight: Param::initialized(
            layer.weight.id,
            Tensor::from_data(weight, device).set_require_grad(device.is_autodiff()),
        ),
        bias: layer.bias.map(|param| {
            Param::initialized(
                param.id,
                Tensor::from_data(bias, device).set_require_grad(device.is_autodiff()),
            )
        }),
    }
}

/// A [`Mlp`] with batch normalization of its inputs and of its hidden layer.
#[derive(Module, Debug)]
pub struct NormMlp {
    /// Its statistics are those of the data, whatever the weights.
    pub inputs: BatchNorm,
    /// `[FEATURES, 8]`
    pub hidden: Linear,
    /// Its statistics depend on the weights of `hidden`.
    pub norm: BatchNorm,
    /// `[8, 1]`
    pub output: Linear,
}

impl NormMlp {
    /// Weights that `seed` decides, the same on every device.
    pub fn new(seed: u64, device: &Device) -> Self {
        Self {
            inputs: BatchNormConfig::new(FEATURES).init(device),
            hidden: linear(seed, FEATURES, 8, device),
            norm: BatchNormConfig::new(8).init(device),
            output: linear(seed + 1, 8, 1, device),
        }
    }

    /// The running mean and variance of both layers.
    pub fn statistics(&self) -> Vec<f32> {
        [&self.inputs, &self.norm]
            .into_iter()
            .flat_map(|norm| {
                [
                    norm.running_mean.value_sync(),
                    norm.running_var.value_sync(),
                ]
            })
            .flat_map(read)
            .collect()
    }

    /// The gradients of the loss.
    pub fn gradients(&self, points: &Points) -> GradientsParams {
        let loss = TrainingModel::predict(self, points).loss;
        GradientsParams::from_grads(loss.backward(), self)
    }
}

/// A module that learns [`Points`].
pub trait TrainingModel: Module {
    /// The output, the targets and the mean squared error.
    fn predict(&self, points: &Points) -> RegressionOutput {
        let output = self.forward(points.x.clone());
        let loss = MseLoss::new().forward(output.clone(), points.y.clone(), Reduction::Mean);
        RegressionOutput::new(loss, output, points.y.clone())
    }

    /// `[batch, FEATURES]` to `[batch, 1]`.
    fn forward(&self, x: Tensor<2>) -> Tensor<2>;
}

impl TrainingModel for Mlp {
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.output.forward(tanh(self.hidden.forward(x)))
    }
}

impl TrainingModel for NormMlp {
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let x = self
            .norm
            .forward(self.hidden.forward(self.inputs.forward(x)));
        self.output.forward(tanh(x))
    }
}

macro_rules! learns {
    ($model:ty) => {
        impl TrainStep for $model {
            type Input = Points;
            type Output = RegressionOutput;

            fn step(&self, points: Points) -> TrainOutput<RegressionOutput> {
                let item = self.predict(&points);
                TrainOutput::new(self, item.loss.backward(), item)
            }
        }

        impl InferenceStep for $model {
            type Input = Points;
            type Output = RegressionOutput;

            fn step(&self, points: Points) -> RegressionOutput {
                self.predict(&points)
            }
        }
    };
}

learns!(Mlp);
learns!(NormMlp);

/// Parameters of every rank from 1 to 5 and nothing else, for gradients made by hand.
#[derive(Module, Debug, Default)]
pub struct Parameters {
    /// Rank 1.
    pub rank1: Vec<Param<Tensor<1>>>,
    /// Rank 2.
    pub rank2: Vec<Param<Tensor<2>>>,
    /// Rank 3.
    pub rank3: Vec<Param<Tensor<3>>>,
    /// Rank 4.
    pub rank4: Vec<Param<Tensor<4>>>,
    /// Rank 5.
    pub rank5: Vec<Param<Tensor<5>>>,
}

impl Parameters {
    /// Adds a parameter and, if it has one, its gradient to `grads`.
    ///
    /// With `transposed`, both are views that are not contiguous in memory (from rank 2 on).
    pub fn push(
        &mut self,
        shape: &[usize],
        weight: &[f64],
        grad: Option<&[f64]>,
        transposed: bool,
        (device, dtype): (&Device, DType),
        grads: &mut GradientsParams,
    ) {
        macro_rules! push {
            ($rank:literal, $field:ident) => {{
                let shape: [usize; $rank] = shape.try_into().expect("the rank of the arm");
                let tensor =
                    |values: &[f64]| tensor::<$rank>(shape, values, transposed, (device, dtype));
                let id = ParamId::new();
                if let Some(grad) = grad {
                    grads.register(id, tensor(grad));
                }
                let weight = tensor(weight).autodiff().require_grad();
                self.$field.push(Param::initialized(id, weight));
            }};
        }
        match shape.len() {
            1 => push!(1, rank1),
            2 => push!(2, rank2),
            3 => push!(3, rank3),
            4 => push!(4, rank4),
            5 => push!(5, rank5),
            rank => panic!("rank {rank}"),
        }
    }
}

/// A tensor of the given values, in memory the other way round if `transposed`.
pub fn tensor<const D: usize>(
    shape: [usize; D],
    values: &[f64],
    transposed: bool,
    (device, dtype): (&Device, DType),
) -> Tensor<D> {
    let tensor = Tensor::from_data(TensorData::new(values.to_vec(), shape), (device, dtype));
    match transposed && D > 1 {
        false => tensor,
        true => {
            // Copied out in transposed order, and seen through a view in the order asked for.
            let swapped = tensor.swap_dims(0, D - 1).into_data();
            Tensor::<D>::from_data(swapped, (device, dtype)).swap_dims(0, D - 1)
        }
    }
}

/// A tensor's values, as f32 bit for bit.
pub fn read<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

/// All floating-point parameters of a module, in its order, with their paths. They are exact: an
/// f64 holds every smaller type.
pub fn values<M: Module>(module: &M) -> Vec<(String, Vec<f64>)> {
    #[derive(Default)]
    struct Values {
        path: Vec<String>,
        values: Vec<(String, Vec<f64>)>,
    }

    impl ModuleVisitor for Values {
        fn enter_module(&mut self, name: &str, _container_type: &str) {
            self.path.push(name.to_string());
        }

        fn exit_module(&mut self, _name: &str, _container_type: &str) {
            self.path.pop();
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let values = param.val().into_data().iter::<f64>().collect();
            self.values.push((self.path.join("."), values));
        }
    }

    let mut visitor = Values::default();
    module.visit(&mut visitor);
    visitor.values
}

/// Whether two modules have the same values under the same paths. Unlike `==`, it takes NaN for
/// NaN.
pub fn same_values<M: Module, N: Module>(a: &M, b: &N) -> bool {
    let bits = |values: Vec<(String, Vec<f64>)>| -> Vec<(String, Vec<u64>)> {
        (values.into_iter())
            .map(|(path, values)| (path, values.into_iter().map(f64::to_bits).collect()))
            .collect()
    };
    bits(values(a)) == bits(values(b))
}

/// Whether two modules are what the same training made twice: the same to the bit, or, on a GPU, whose products
/// Burn tunes as it goes, to 1e-5.
pub fn same_training<M: Module, N: Module>(a: &M, b: &N) -> bool {
    let cpu = cpu_devices();
    let is_cpu = |device: &Device| cpu.contains(&device.clone().inner());
    if a.devices().iter().all(is_cpu) {
        return same_values(a, b);
    }
    let (a, b) = (values(a), values(b));
    a.len() == b.len()
        && a.iter().zip(&b).all(|((a_path, a), (b_path, b))| {
            let near = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-5 * (1.0 + b.abs());
            a_path == b_path && a.len() == b.len() && a.iter().zip(b).all(near)
        })
}

/// The message of a panic.
pub fn panic_message<T>(f: impl FnOnce() -> T) -> String {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)) {
        Ok(_) => panic!("it did not panic"),
        Err(payload) => match payload.downcast::<String>() {
            Ok(message) => *message,
            Err(payload) => payload.downcast::<&str>().expect("a message").to_string(),
        },
    }
}
