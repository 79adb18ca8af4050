//! A clone beside its origin in one module (a target network, a teacher, an average of the weights): the two have the
//! same ids, and one of them is trained.

use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::module::{Module, ModuleDisplay, ModuleMapper, Param, ParamId};
use burn::nn::Linear;
use burn::optim::{GradientsParams, ModuleOptimizer, SgdConfig};
use burn::tensor::{Device, Tensor};
use burn::train::{RegressionOutput, TrainOutput, TrainStep};
use burn_sam::{Direction, Flatness, SamConfig};
use burn_sam_tests::{
    Mlp, NormMlp, Points, TrainingModel, cpu_devices, devices, same_values, values,
};

use crate::methods::{all_methods, near};

const LR: f64 = 0.05;

/// What is trained, and what follows it.
#[derive(Module, Debug)]
struct Pair<M: Module> {
    online: M,
    target: M,
}

/// How the target is made.
#[derive(Clone, Copy, Debug)]
struct Target {
    /// As Burn clones; if not, each parameter has an id of its own.
    same_ids: bool,
    frozen: bool,
}

/// Other weights, as a target's are after a while.
impl ModuleMapper for Target {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        // Running statistics are shared by clones.
        if !param.is_require_grad() {
            return param;
        }
        let id = if self.same_ids {
            param.id
        } else {
            ParamId::new()
        };
        let value = param.val().inner() * 0.5 + 0.25;
        Param::initialized(id, Tensor::from_inner(value).require_grad())
    }
}

impl<M: TrainingModel + Layers> Pair<M> {
    fn new(online: M, mut how: Target) -> Self {
        let target = online.clone().map(&mut how);
        let target = if how.frozen { target.freeze() } else { target };
        Self { online, target }
    }

    fn output(&self, points: &Points) -> RegressionOutput {
        let output = self.online.predict(points);
        let target = self.target.forward(points.x.clone()).detach();
        let apart = (output.output.clone() - target).square().mean();
        RegressionOutput::new(output.loss + apart, output.output, output.targets)
    }

    fn update(
        self,
        optim: &mut ModuleOptimizer,
        lr: ModuleLearningRate,
        grads: GradientsParams,
    ) -> Self {
        let pair = optim.step(lr, self, grads);
        let target = pair.target.follow(&pair.online);
        Self { target, ..pair }
    }
}

impl<M: TrainingModel + Layers> TrainStep for Pair<M> {
    type Input = Points;
    type Output = RegressionOutput;

    fn step(&self, points: Points) -> TrainOutput<RegressionOutput> {
        let output = self.output(&points);
        TrainOutput::new(self, output.loss.backward(), output)
    }

    fn optimize(
        self,
        optim: &mut ModuleOptimizer,
        lr: ModuleLearningRate,
        grads: GradientsParams,
    ) -> Self {
        self.update(optim, lr, grads)
    }
}

trait Layers: ModuleDisplay {
    fn layers(&mut self) -> [&mut Linear; 2];

    /// A tenth of the way to another one's weights, with its own ids.
    fn follow(mut self, other: &Self) -> Self
    where
        Self: Sized + Clone,
    {
        let mut other = other.clone();
        for (layer, other) in self.layers().into_iter().zip(other.layers()) {
            layer.weight = follow(layer.weight.clone(), &other.weight);
            layer.bias = (layer.bias.take().zip(other.bias.as_ref()))
                .map(|(bias, other)| follow(bias, other));
        }
        self
    }
}

fn follow<const D: usize>(param: Param<Tensor<D>>, other: &Param<Tensor<D>>) -> Param<Tensor<D>> {
    let other = other.val().inner();
    param.map(|value| {
        let followed = value.clone().inner() * 0.9 + other * 0.1;
        Tensor::from_inner(followed).set_require_grad(value.is_require_grad())
    })
}

impl Layers for Mlp {
    fn layers(&mut self) -> [&mut Linear; 2] {
        [&mut self.hidden, &mut self.output]
    }
}

impl Layers for NormMlp {
    fn layers(&mut self) -> [&mut Linear; 2] {
        [&mut self.hidden, &mut self.output]
    }
}

/// Where six steps end, in a loop and in the Learner's hooks.
fn train<M: TrainingModel + Layers>(
    sam: &SamConfig,
    pair: impl Fn() -> Pair<M>,
    device: &Device,
) -> [Pair<M>; 2] {
    let sgd = || SgdConfig::new().init();
    let batches: Vec<Points> = (0..6).map(|seed| Points::new(seed, device)).collect();
    let (mut in_loop, mut optim) = (pair(), sgd());
    let mut steps = sam.steps(&in_loop);
    for points in &batches {
        (in_loop, _) = steps.minimize(&mut optim, LR, in_loop, |pair: &Pair<M>| {
            pair.output(points).loss
        });
        in_loop.target = in_loop.target.follow(&in_loop.online);
    }
    let (mut wrapped, mut optim) = (sam.init(pair()), sgd());
    for points in &batches {
        let step = TrainStep::step(&wrapped, points.clone());
        wrapped = TrainStep::optimize(wrapped, &mut optim, LR.into(), step.grads);
    }
    [in_loop, wrapped.into_inner()]
}

fn trains_like_one_with_ids_of_its_own<M: TrainingModel + Layers>(make: fn(u64, &Device) -> M) {
    for device in cpu_devices() {
        let device = device.autodiff();
        for sam in all_methods() {
            for frozen in [false, true] {
                let pair = |same_ids| {
                    let how = Target { same_ids, frozen };
                    train(&sam, || Pair::new(make(1, &device), how), &device)
                };
                for (same, own) in pair(true).iter().zip(&pair(false)) {
                    near(same, own, 1e-5);
                    assert!(!same_values(&same.online, &make(1, &device)), "{sam}");
                }
            }
        }
    }
}

#[test]
fn a_clone_beside_what_is_trained_is_left_alone() {
    trains_like_one_with_ids_of_its_own(Mlp::new);
}

#[test]
fn so_it_is_with_running_statistics() {
    trains_like_one_with_ids_of_its_own(NormMlp::new);
}

/// By one step that is written out: the online network moves by rho, and the target not at all.
#[test]
fn the_online_network_climbs_by_rho() {
    for device in devices() {
        let device = device.autodiff();
        let points = Points::new(0, &device);
        for frozen in [false, true] {
            let how = Target {
                same_ids: true,
                frozen,
            };
            let pair = Pair::new(NormMlp::new(1, &device), how);
            let grads = pair.output(&points).loss.backward();
            let climbed = SamConfig::new()
                .with_rho(0.05)
                .first_step(pair.clone(), grads);
            assert!(same_values(&climbed.target, &pair.target));
            let [a, b] = [&climbed.online, &pair.online].map(|model| -> Vec<f64> {
                let trained = |(path, _): &(String, Vec<f64>)| !path.contains("running");
                let values = values(model).into_iter().filter(trained);
                values.flat_map(|(_, values)| values).collect()
            });
            let squares = a.iter().zip(&b).map(|(a, b)| (a - b).powi(2));
            let length = squares.sum::<f64>().sqrt();
            assert!((length - 0.05).abs() < 1e-6, "{length}");
        }
    }
}

/// Measures of flatness of a pair.
fn measured<M: TrainingModel + Layers>(pair: &Pair<M>, device: &Device) -> Vec<f64> {
    let batches = [Points::new(0, device), Points::new(1, device)];
    let loss = |pair: &Pair<M>, points: &Points| pair.output(points).loss;
    let flatness = Flatness::new(pair, &batches, loss).unwrap();
    let sam = SamConfig::new().with_rho(0.1);
    let along = Direction::random(3).with_points(3);
    vec![
        flatness.sharpness(&sam).unwrap(),
        flatness.average_sharpness(&sam, 3, 1).unwrap().mean,
        flatness.eigenvalues(1, 2).unwrap()[0].value,
        flatness.trace(3, 3).unwrap().mean,
        flatness.curve(&along).unwrap().losses[0].unwrap(),
    ]
}

/// What is measured is the network that is trained, whether the other one is frozen or not.
#[test]
fn flatness_is_of_what_is_trained() {
    fn pair<M: TrainingModel + Layers>(online: M, same_ids: bool, frozen: bool) -> Pair<M> {
        Pair::new(online, Target { same_ids, frozen })
    }

    for device in cpu_devices() {
        let device = device.autodiff();
        // With ids of its own, a target that is not frozen would be measured too.
        let own = measured(&pair(Mlp::new(1, &device), false, true), &device);
        let own_norm = measured(&pair(NormMlp::new(1, &device), false, true), &device);
        for (same, own) in [
            (
                measured(&pair(Mlp::new(1, &device), true, true), &device),
                &own,
            ),
            (
                measured(&pair(Mlp::new(1, &device), true, false), &device),
                &own,
            ),
            (
                measured(&pair(NormMlp::new(1, &device), true, true), &device),
                &own_norm,
            ),
        ] {
            for (a, b) in same.iter().zip(own) {
                assert!(
                    (a - b).abs() <= 1e-4 * (1.0 + b.abs()),
                    "{same:?} for {own:?}"
                );
            }
        }
    }
}
