use burn::module::{Module, ModuleVisitor, Param};
use burn::nn::Linear;
use burn::optim::ModuleOptimizer;
use burn::tensor::activation::{log_softmax, relu, tanh};
use burn::tensor::{DType, Device, FloatDType, Gradients, Int, Tensor, TensorData};

use crate::case::{Activation, Base, Batch, Case, Layer, Loss, Model, Targets};

/// How far a replay is from the reference: the largest absolute difference of a series over the
/// largest absolute value of the reference's.
#[derive(Clone, Copy, Debug)]
pub struct Deviations {
    /// Of the losses at w and at w + e(w).
    pub losses: f64,
    /// Of the gradient norms, at w and where the reference has them also at w + e(w).
    pub norms: f64,
    /// Of the weights after the last step.
    pub weights: f64,
}

impl Deviations {
    /// The largest of the three; NaN if one of them is.
    pub fn largest(&self) -> f64 {
        let all = [self.losses, self.norms, self.weights];
        all.into_iter().fold(0.0, nan_or_max)
    }
}

/// Trains as the case says, with burn-sam, and compares.
///
/// # Arguments
///
/// * `case` - the reference.
/// * `device` - where to train, without autodiff.
/// * `dtype` - the floating-point type to train in.
pub fn replay(case: &Case, device: &Device, dtype: FloatDType) -> Deviations {
    match case.base() {
        Base::Sgd(base) => replay_with(case, base.into(), device, dtype),
        Base::Adam(base) => replay_with(case, base.into(), device, dtype),
        Base::AdamW(base) => replay_with(case, base.into(), device, dtype),
    }
}

/// Like [`replay`], with another base optimizer in place of the case's.
pub fn replay_with(
    case: &Case,
    base: ModuleOptimizer,
    device: &Device,
    dtype: FloatDType,
) -> Deviations {
    let run = Run {
        case,
        device: device.clone().autodiff(),
        dtype: dtype.into(),
    };
    run.train(base)
}

#[derive(Module, Debug)]
struct Mlp {
    layers: Vec<Linear>,
}

struct Run<'a> {
    case: &'a Case,
    device: Device,
    dtype: DType,
}

impl Run<'_> {
    fn train(&self, mut optim: ModuleOptimizer) -> Deviations {
        let sam = self.case.sam().expect("Case::load checks the method");
        let mut model = self.model(&self.case.init);
        let mut losses = Series::default();
        let mut norms = Series::default();

        let mut steps = sam.steps(&model);
        for (index, step) in self.case.steps.iter().enumerate() {
            let batch = &self.case.batches[index % self.case.batches.len()];
            let mut count = 0;
            let lr = self.case.learning_rate();
            let (updated, passes) = steps.optimize(&mut optim, lr, model, |model| {
                count += 1;
                let loss = self.loss(model, batch);
                let grads = loss.backward();
                ((read(loss)[0], norm(model, &grads)), grads)
            });
            model = updated;
            assert_eq!(count, step.passes, "passes of step {index}");

            let (at_w, climbed) = (passes.at_w.unzip(), passes.climbed.unzip());
            losses.add(at_w.0, step.loss);
            losses.add(climbed.0, Some(step.loss_perturbed));
            norms.add(at_w.1, step.grad_norm);
            norms.add(climbed.1, step.grad_norm_perturbed);
        }

        let mut weights = Series::default();
        for (layer, reference) in model.layers.iter().zip(&self.case.last) {
            let bias = layer.bias.as_ref().expect("every layer has a bias");
            for (value, reference) in read(layer.weight.val())
                .into_iter()
                .zip(reference.weight.iter().flatten())
                .chain(read(bias.val()).into_iter().zip(&reference.bias))
            {
                weights.add(Some(value), Some(*reference));
            }
        }
        Deviations {
            losses: losses.deviation(),
            norms: norms.deviation(),
            weights: weights.deviation(),
        }
    }

    fn model(&self, layers: &[Layer]) -> Mlp {
        let layer = |layer: &Layer| Linear {
            weight: Param::from_tensor(self.matrix(&layer.weight)),
            bias: Some(Param::from_tensor(
                self.tensor(layer.bias.clone(), [layer.bias.len()]),
            )),
        };
        Mlp {
            layers: layers.iter().map(layer).collect(),
        }
    }

    fn loss(&self, model: &Mlp, batch: &Batch) -> Tensor<1> {
        let Model {
            activation, loss, ..
        } = &self.case.model;
        let mut x = self.matrix(&batch.x);
        for (index, layer) in model.layers.iter().enumerate() {
            x = layer.forward(x);
            if index + 1 < model.layers.len() {
                x = match activation {
                    Activation::Tanh => tanh(x),
                    Activation::Relu => relu(x),
                };
            }
        }
        match (&batch.y, loss) {
            (Targets::Values(y), Loss::Mse) => (x - self.matrix(y)).square().mean(),
            (Targets::Classes(y), Loss::CrossEntropy) => {
                let y = Tensor::<2, Int>::from_data(
                    TensorData::new(y.clone(), [y.len(), 1]),
                    &self.device,
                );
                log_softmax(x, 1).gather(1, y).mean().neg()
            }
            _ => unreachable!("Case::load checks the targets"),
        }
    }

    fn matrix(&self, rows: &[Vec<f64>]) -> Tensor<2> {
        self.tensor(rows.concat(), [rows.len(), rows[0].len()])
    }

    fn tensor<const D: usize>(&self, values: Vec<f64>, shape: [usize; D]) -> Tensor<D> {
        Tensor::from_data(TensorData::new(values, shape), (&self.device, self.dtype))
    }
}

/// The gradient norm |g|, computed apart from burn-sam's own.
fn norm(model: &Mlp, grads: &Gradients) -> f64 {
    let mut sum = SquaredNorm { grads, sum: 0.0 };
    model.visit(&mut sum);
    sum.sum.sqrt()
}

struct SquaredNorm<'a> {
    grads: &'a Gradients,
    sum: f64,
}

impl ModuleVisitor for SquaredNorm<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = param.val().grad(self.grads) {
            self.sum += read(grad).into_iter().map(|g| g * g).sum::<f64>();
        }
    }
}

fn read<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data().iter::<f64>().collect()
}

/// A series of values beside the reference's.
#[derive(Default)]
struct Series {
    difference: f64,
    reference: f64,
}

impl Series {
    /// Where the reference has a value, there must be one.
    fn add(&mut self, value: Option<f64>, reference: Option<f64>) {
        let Some(reference) = reference else { return };
        let value = value.unwrap_or(f64::NAN);
        self.difference = nan_or_max(self.difference, (value - reference).abs());
        self.reference = nan_or_max(self.reference, reference.abs());
    }

    fn deviation(&self) -> f64 {
        match self.difference == 0.0 {
            true => 0.0,
            false => self.difference / self.reference,
        }
    }
}

/// The larger one. Unlike [`f64::max`] it does not lose a NaN, which must not pass for agreement.
fn nan_or_max(a: f64, b: f64) -> f64 {
    if a.is_nan() || a > b { a } else { b }
}
