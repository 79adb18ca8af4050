//! What `docs/half-precision.md` says of scaled losses. The functions are those of the page.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::momentum::MomentumConfig;
use burn::optim::{GradientsParams, ModuleOptimizer, SgdConfig};
use burn::tensor::{Bool, DType, Device, Tensor};
use burn_sam::SamConfig;
use burn_sam_tests::{Mlp, Points, devices, read, same_values, values};

const LR: f64 = 0.1;

/// Divides the gradients by the scale of their loss, and says whether all of them are finite.
fn unscale<M: Module>(module: &M, grads: &mut GradientsParams, scale: f64) -> bool {
    struct Unscale<'a> {
        grads: &'a mut GradientsParams,
        scale: f64,
        finite: Vec<Tensor<1, Bool>>,
    }

    impl ModuleVisitor for Unscale<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(grad) = self.grads.remove::<D>(param.id) {
                let grad = grad / self.scale;
                self.finite.push(grad.clone().is_finite().all());
                self.grads.register(param.id, grad);
            }
        }
    }

    let mut visitor = Unscale {
        grads,
        scale,
        finite: Vec::new(),
    };
    module.visit(&mut visitor);
    match visitor.finite.is_empty() {
        true => true,
        false => Tensor::cat(visitor.finite, 0).all().into_scalar::<bool>(),
    }
}

fn sam() -> SamConfig {
    SamConfig::new().with_rho(0.5)
}

/// A step with a scaled loss: what the page has.
fn scaled_step(
    optim: &mut ModuleOptimizer,
    model: Mlp,
    points: &Points,
    scale: &mut f64,
    loss: impl Fn(&Mlp, &Points) -> Tensor<1>,
) -> Mlp {
    let grads = (loss(&model, points) * *scale).backward();
    let climbed = sam().first_step(model, grads);

    let grads = (loss(&climbed, points) * *scale).backward();
    let mut grads = climbed.second_gradients(grads);
    let model = climbed.step_back();
    match unscale(&model, &mut grads, *scale) {
        true => optim.step(LR, model, grads),
        false => {
            *scale /= 2.0;
            model
        }
    }
}

#[test]
fn a_scaled_loss_climbs_to_the_same_place() {
    for device in devices() {
        let device = device.autodiff();
        let (model, points) = (Mlp::new(1, &device), Points::new(0, &device));
        let climbed = |scale: f64| {
            let grads = (model.loss(&points) * scale).backward();
            sam().first_step(model.clone(), grads)
        };
        assert!(same_values(&*climbed(1.0), &*climbed(1024.0)), "{device:?}");
        assert!(!same_values(&*climbed(1.0), &model));
    }
}

#[test]
fn unscaled_second_gradients_make_the_same_steps() {
    for device in devices() {
        let device = device.autodiff();
        let optim = || {
            let momentum = MomentumConfig::new();
            SgdConfig::new().with_momentum(Some(momentum)).init()
        };
        let (mut plain_optim, mut scaled_optim) = (optim(), optim());
        let mut plain = Mlp::new(1, &device);
        let mut scaled = plain.clone();
        let mut scale = 1024.0;
        for step in 0..5 {
            let points = Points::new(step, &device);
            let pass = |model: &Mlp| ((), model.loss(&points).backward());
            (plain, _) = sam().optimize(&mut plain_optim, LR, plain, pass);
            scaled = scaled_step(&mut scaled_optim, scaled, &points, &mut scale, Mlp::loss);
            for ((path, plain), (_, scaled)) in values(&plain).iter().zip(values(&scaled)) {
                for (plain, scaled) in plain.iter().zip(scaled) {
                    assert!((plain - scaled).abs() < 1e-6, "{path} on {device:?}");
                }
            }
        }
        assert_eq!(scale, 1024.0);
    }
}

/// A loss whose backward pass goes through f16 where the device has it.
fn through_half(model: &Mlp, points: &Points) -> Tensor<1> {
    let loss = model.loss(points);
    match points.x.device().supports_dtype(DType::F16) {
        true => loss.cast(DType::F16).cast(DType::F32),
        false => loss,
    }
}

/// A scale that overflows what the loss goes through.
fn too_large(device: &Device) -> f64 {
    match device.supports_dtype(DType::F16) {
        true => 1e6,
        false => 1e39,
    }
}

#[test]
fn an_overflow_costs_the_step_and_nothing_else() {
    for device in devices() {
        let device = device.autodiff();
        let (model, points) = (Mlp::new(1, &device), Points::new(0, &device));
        let mut scale = too_large(&device);

        let grads = (through_half(&model, &points) * scale).backward();
        let climbed = sam().first_step(model.clone(), grads);
        assert!(same_values(&*climbed, &model), "nothing is perturbed");

        let mut optim = SgdConfig::new()
            .with_momentum(Some(MomentumConfig::new()))
            .init();
        let state = |optim: &ModuleOptimizer| optim.into_bytes().unwrap().to_vec();
        let (before, state_before) = (scale, state(&optim));
        let after = scaled_step(&mut optim, model.clone(), &points, &mut scale, through_half);
        assert!(same_values(&after, &model), "{device:?}");
        assert_eq!(scale, before / 2.0);
        assert_eq!(state(&optim), state_before);

        // In the second pass only: the gradients are handed on as they are.
        let climbed = sam().first_step(model.clone(), model.loss(&points).backward());
        assert!(!same_values(&*climbed, &model));
        let grads = (through_half(&climbed, &points) * before).backward();
        let mut grads = climbed.second_gradients(grads);
        let weight = grads.get::<2>(model.output.weight.id).unwrap();
        assert!(read(weight).iter().any(|value| !value.is_finite()));
        assert!(!unscale(&model, &mut grads, before));
        assert!(same_values(&climbed.step_back(), &model));

        // With a scale that fits, training goes on.
        let mut scale = 128.0;
        let after = scaled_step(&mut optim, model.clone(), &points, &mut scale, through_half);
        assert!(!same_values(&after, &model));
        assert_ne!(state(&optim), state_before);
        assert_eq!(scale, 128.0);
    }
}
