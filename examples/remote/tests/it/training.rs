//! A training on a remote device has the weights of one on the same backend here.

use burn::grad_clipping::GradientClippingConfig;
use burn::module::{Module, ParamGroup};
use burn::optim::momentum::MomentumConfig;
use burn::optim::{AdamConfig, GradientsParams, ModuleOptimizer, SgdConfig};
use burn::tensor::{Device, Tensor};
use burn::train::{Learner, RegressionOutput};
use burn_sam::{AscentPart, Flatness, SamConfig, SamSteps};
use burn_sam_tests::{Mlp, NormMlp, Points, TrainingModel, train, values};
use clap::ValueEnum;
use example_common::Method;

use crate::server::Server;

pub(crate) const LR: f64 = 0.05;
/// The rule at one pass climbs from the 21st on.
const STEPS: u64 = 24;

/// With momentum.
pub(crate) fn sgd() -> ModuleOptimizer {
    let momentum = MomentumConfig::new().with_momentum(0.9).with_dampening(0.0);
    SgdConfig::new().with_momentum(Some(momentum)).init()
}

/// On a server's device and on flex here.
fn on_both<T>(server: &Server, f: impl Fn(&Device) -> T) -> [T; 2] {
    [server.device(), Device::flex().autodiff()].map(|device| f(&device))
}

/// The same to the rounding of f32: the plain tensor operations that a remote device takes sum in another order than
/// the kernels for a CPU.
pub(crate) fn assert_near(what: &str, remote: &[f64], local: &[f64]) {
    assert_eq!(remote.len(), local.len(), "{what}");
    let apart = |(a, b): (&f64, &f64)| (a - b).abs() / (1.0 + b.abs());
    let apart: Vec<f64> = remote.iter().zip(local).map(apart).collect();
    // Not by the largest, which leaves NaN out.
    assert!(
        apart.iter().all(|apart| *apart < 1e-5),
        "{what}: {apart:?} apart"
    );
    let most = apart.into_iter().fold(0.0, f64::max);
    println!("{what}: {most:e} apart");
}

/// [`assert_near`] of two modules' weights.
pub(crate) fn assert_same<M: Module>(what: &str, remote: &M, local: &M) {
    let [remote, local] = [remote, local].map(|model| {
        let values = values(model).into_iter();
        values.flat_map(|(_, values)| values).collect::<Vec<_>>()
    });
    assert_near(what, &remote, &local);
}

fn assert_same_statistics(what: &str, remote: &NormMlp, local: &NormMlp) {
    let [remote, local] = [remote, local].map(|model| {
        let statistics = model.statistics().into_iter();
        statistics.map(f64::from).collect::<Vec<_>>()
    });
    assert_near(&format!("{what}, statistics"), &remote, &local);
}

/// A step of any method, or the optimizer's own.
pub(crate) fn step<M: Module>(
    steps: &mut Option<SamSteps>,
    optim: &mut ModuleOptimizer,
    model: M,
    loss: impl Fn(&M, AscentPart) -> Tensor<1>,
) -> M {
    match steps {
        Some(steps) => steps.minimize_on_part(optim, LR, model, loss).0,
        None => {
            let grads = loss(&model, SamConfig::new().ascent_part()).backward();
            let grads = GradientsParams::from_grads(grads, &model);
            optim.step(LR, model, grads)
        }
    }
}

/// Trains in a loop.
fn looped<M: TrainingModel>(
    mut model: M,
    sam: Option<&SamConfig>,
    mut optim: ModuleOptimizer,
    device: &Device,
) -> M {
    let mut steps = sam.map(|sam| sam.steps(&model));
    for seed in 0..STEPS {
        let points = Points::new(seed, device);
        model = step(&mut steps, &mut optim, model, |model, part| {
            model.predict(&points.part(part)).loss
        });
    }
    model
}

/// But for random perturbation, whose noise each backend draws by itself.
pub(crate) fn methods() -> impl Iterator<Item = &'static Method> {
    let methods = Method::value_variants().iter();
    methods.filter(|method| **method != Method::Random)
}

fn compare_each_method_in_a_loop(server: &Server) {
    for method in methods() {
        let sam = method.config(0.1, 4);
        let [remote, local] = on_both(server, |device| {
            looped(NormMlp::new(1, device), sam.as_ref(), sgd(), device)
        });
        assert_same(method.name(), &remote, &local);
        assert_same_statistics(method.name(), &remote, &local);
    }
}

#[test]
fn each_method_in_a_loop() {
    compare_each_method_in_a_loop(&Server::start());
}

#[test]
fn each_method_in_the_learner() {
    let server = Server::start();
    for method in methods() {
        let Some(sam) = method.config(0.1, 4) else {
            continue;
        };
        let [remote, local] = on_both(&server, |device| {
            let mut model = sam.init_on_part(NormMlp::new(1, device), Points::part);
            let sharpness = model.sharpness(|output: &RegressionOutput| output.loss.clone());
            let rho = model.rho_metric();
            let learner = Learner::new(model, sgd(), LR);
            let directory = tempfile::tempdir().unwrap();
            let (result, losses) = train(learner, (STEPS, device), directory.path(), |training| {
                training
                    .metric_train_numeric(sharpness)
                    .metric_train_numeric(rho)
            });
            (result.model.into_inner(), losses)
        });
        assert_same(method.name(), &remote.0, &local.0);
        assert_same_statistics(method.name(), &remote.0, &local.0);
        assert_near("validation losses", &remote.1, &local.1);
    }
}

/// Where there is a GPU, or a software driver for one.
#[cfg(feature = "wgpu-unfused")]
#[test]
fn a_gpu_behind_the_server() {
    if burn_sam_tests::wgpu_device().is_none() {
        return;
    }
    compare_each_method_in_a_loop(&Server::start_with("127.0.0.1:0", "wgpu"));
}

#[test]
fn groups_adaptive_radii_and_clipping() {
    let server = Server::start();
    let groups = SamConfig::new()
        .with_rho(0.1)
        .with_group(ParamGroup::from_predicate("norm"), 0.5)
        .with_group(ParamGroup::from_predicate("bias"), 0.0);
    let clipping = Some(GradientClippingConfig::Norm(0.5));
    for sam in [groups.clone(), groups.with_adaptive(true)] {
        let [remote, local] = on_both(&server, |device| {
            let optim = SgdConfig::new()
                .with_gradient_clipping(clipping.clone())
                .init();
            looped(NormMlp::new(1, device), Some(&sam), optim, device)
        });
        assert_same(&format!("adaptive: {}", sam.adaptive()), &remote, &local);
    }
    // Not with batch normalization: Adam makes steps of the rounding of gradients that are zero.
    let sam = SamConfig::new().with_rho(0.1);
    let [remote, local] = on_both(&server, |device| {
        looped(
            Mlp::new(1, device),
            Some(&sam),
            AdamConfig::new().init(),
            device,
        )
    });
    assert_same("Adam", &remote, &local);
}

#[test]
fn two_steps_by_hand() {
    let server = Server::start();
    let sam = SamConfig::new().with_rho(0.1);
    let [remote, local] = on_both(&server, |device| {
        let mut model = NormMlp::new(1, device);
        let mut optim = sgd();
        for seed in 0..STEPS {
            let points = Points::new(seed, device);
            let grads = model.predict(&points).loss.backward();
            let climbed = sam.first_step(model, grads);
            let grads = climbed.predict(&points).loss.backward();
            model = climbed.second_step(&mut optim, LR, grads);
        }
        model
    });
    assert_same("two steps", &remote, &local);
}

#[test]
fn measures_of_flatness() {
    let server = Server::start();
    let [remote, local] = on_both(&server, |device| {
        let model = NormMlp::new(1, device);
        let batches = [Points::new(0, device), Points::new(1, device)];
        let loss = |model: &NormMlp, points: &Points| model.predict(points).loss;
        let flatness = Flatness::new(&model, &batches, loss).unwrap();
        [
            flatness.sharpness(&SamConfig::new()).unwrap(),
            flatness.eigenvalues(1, 0).unwrap()[0].value,
        ]
    });
    assert_near("sharpness and eigenvalue", &remote, &local);
}
