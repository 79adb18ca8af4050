//! `SamOptimizer`: the second step, the closure form, its records, its misuse.

use burn::grad_clipping::GradientClipping;
use burn::module::{Module, ParamGroup};
use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{Adam, AdamConfig, GradientsParams, ModuleOptimizer, Optimizer, Sgd, SgdConfig};
use burn::tensor::Tensor;
use burn_sam::{SamConfig, SamOptimizer};
use burn_sam_tests::{Mlp, Points, cpu_devices, devices, panic_message, read, same_values};

const LR: f64 = 0.1;

fn sgd() -> Sgd {
    SgdConfig::new()
        .with_momentum(Some(MomentumConfig::new()))
        .with_weight_decay(Some(WeightDecayConfig::new(0.01)))
        .build()
}

fn adam() -> Adam {
    AdamConfig::new().build()
}

fn plain_step(optim: &mut ModuleOptimizer, model: Mlp, points: &Points) -> Mlp {
    let grads = model.gradients(points);
    optim.step(LR, model, grads)
}

fn sam_step<O: Optimizer>(
    sam: &SamOptimizer<O>,
    optim: &mut ModuleOptimizer,
    model: Mlp,
    points: &Points,
) -> Mlp {
    let climbed = sam.first_step(&model, model.gradients(points));
    optim.step(LR, model, climbed.gradients(points))
}

fn with_rho_zero_is_the_base<O: Optimizer>(base: impl Fn() -> O) {
    for device in devices() {
        let device = device.autodiff();
        let sam = SamConfig::new().with_rho(0.0).optimizer(base());
        let mut optim = ModuleOptimizer::from(sam.clone());
        let mut plain_optim = ModuleOptimizer::from(base());
        let mut model = Mlp::new(1, &device);
        let mut plain = model.clone();
        for step in 0..10 {
            let points = Points::new(step, &device);
            model = sam_step(&sam, &mut optim, model, &points);
            plain = plain_step(&mut plain_optim, plain, &points);
            assert!(same_values(&model, &plain), "step {step} on {device:?}");
        }
    }
}

#[test]
fn a_rho_of_zero_is_the_base_optimizer_exactly() {
    with_rho_zero_is_the_base(sgd);
    with_rho_zero_is_the_base(adam);
}

#[test]
fn a_rho_above_zero_is_not() {
    for device in devices() {
        let device = device.autodiff();
        let sam = SamConfig::new().optimizer(sgd());
        let points = Points::new(0, &device);
        let model = Mlp::new(1, &device);
        let plain = plain_step(&mut ModuleOptimizer::from(sgd()), model.clone(), &points);
        let model = sam_step(
            &sam,
            &mut ModuleOptimizer::from(sam.clone()),
            model,
            &points,
        );
        assert!(!same_values(&model, &plain));
    }
}

#[test]
fn the_closure_form_takes_the_same_steps_and_hands_back_the_first_pass() {
    for device in devices() {
        let device = device.autodiff();
        let sam = SamConfig::new().with_rho(0.5).optimizer(adam());
        let mut optim = ModuleOptimizer::from(sam.clone());
        let mut closure_optim = ModuleOptimizer::from(sam.clone());
        let mut model = Mlp::new(1, &device);
        let mut closure_model = model.clone();
        for step in 0..5 {
            let points = Points::new(step, &device);
            let loss_at_w = read(model.loss(&points));
            model = sam_step(&sam, &mut optim, model, &points);

            let mut passes = 0;
            let (updated, loss): (_, Tensor<1>) =
                sam.optimize(&mut closure_optim, LR, closure_model, |model: &Mlp| {
                    passes += 1;
                    let loss = model.loss(&points);
                    let grads = GradientsParams::from_grads(loss.backward(), model);
                    (loss, grads)
                });
            closure_model = updated;
            assert_eq!(passes, 2);
            assert_eq!(read(loss), loss_at_w);
            assert!(same_values(&model, &closure_model));
        }
    }
}

#[test]
fn a_run_goes_from_plain_to_sam_and_back_through_records() {
    for device in cpu_devices() {
        let device = device.autodiff();
        let points = Points::new(0, &device);
        let sam = SamConfig::new().optimizer(adam());

        // Plain, SAM, plain; with the same state handed on in memory, and through records.
        let mut optim = ModuleOptimizer::from(sam.clone());
        let start = Mlp::new(1, &device);
        let mut model = start.clone();
        // SamOptimizer's update is the base's, so one optimizer can do both.
        sam.first_step(&model, model.gradients(&points));
        model = plain_step(&mut optim, model, &points);
        model = sam_step(&sam, &mut optim, model, &points);
        model = plain_step(&mut optim, model, &points);

        let mut plain_optim = ModuleOptimizer::from(adam());
        let mut resumed = plain_step(&mut plain_optim, start, &points);
        let mut sam_optim = ModuleOptimizer::from(sam.clone())
            .from_bytes(plain_optim.into_bytes().unwrap())
            .unwrap();
        resumed = sam_step(&sam, &mut sam_optim, resumed, &points);
        let mut plain_optim = ModuleOptimizer::from(adam())
            .from_bytes(sam_optim.into_bytes().unwrap())
            .unwrap();
        resumed = plain_step(&mut plain_optim, resumed, &points);
        assert!(same_values(&model, &resumed));

        // The state did matter.
        let forgetful = plain_step(&mut ModuleOptimizer::from(adam()), resumed.clone(), &points);
        let resumed = plain_step(&mut plain_optim, resumed, &points);
        assert!(!same_values(&forgetful, &resumed));
    }
}

#[test]
fn gradient_clipping_is_of_the_second_gradients() {
    for device in cpu_devices() {
        let device = device.autodiff();
        let points = Points::new(0, &device);
        let clipping = GradientClipping::Norm(1e-3);
        let sam = SamConfig::new()
            .with_rho(0.5)
            .optimizer(SgdConfig::new().build());
        let mut optim = ModuleOptimizer::from(sam.clone()).with_grad_clipping(clipping.clone());
        let model = Mlp::new(1, &device);

        let climbed = sam.first_step(&model, model.gradients(&points));
        let mut plain = SgdConfig::new().init().with_grad_clipping(clipping);
        let expected = plain.step(LR, model.clone(), climbed.gradients(&points));
        let clipped = sam_step(&sam, &mut optim, model, &points);
        assert!(same_values(&clipped, &expected));
    }
}

#[test]
fn groups_of_base_optimizers_work_under_one_ascent() {
    for device in cpu_devices() {
        let device = device.autodiff();
        let points = Points::new(0, &device);
        let sam = SamConfig::new().optimizer(SgdConfig::new().build());
        let still = ParamGroup::from_predicate("output");
        let mut optim = ModuleOptimizer::from(sam.clone()).with_group(still, adam(), None);
        let model = Mlp::new(1, &device);
        let before = model.clone();
        let model = sam_step(&sam, &mut optim, model, &points);
        assert!(!same_values(&model.hidden, &before.hidden));
        // Adam's first step is lr in size wherever the gradient is not zero.
        let step = read(model.output.weight.val() - before.output.weight.val());
        assert!(
            step.iter()
                .all(|step| (step.abs() - LR as f32).abs() < 1e-3),
            "{step:?}"
        );
    }
}

#[test]
fn without_any_ascent_the_first_step_panics_and_says_what_to_do() {
    for device in cpu_devices() {
        let device = device.autodiff();
        let points = Points::new(0, &device);
        let sam = SamConfig::new().optimizer(sgd());
        let mut optim = ModuleOptimizer::from(sam.clone());
        let model = Mlp::new(1, &device);
        let message = panic_message(|| plain_step(&mut optim, model.clone(), &points));
        assert!(
            message.contains("stepped before any first step"),
            "{message}"
        );
        assert!(message.contains("SamConfig::init(model)"), "{message}");
        assert!(message.contains("SamOptimizer::first_step"), "{message}");

        // Nothing is lost: the same optimizer goes on once it is used as meant.
        sam_step(&sam, &mut optim, model, &points);
        // An optimizer of another family does not count.
        let other = SamConfig::new().optimizer(sgd());
        let model = Mlp::new(1, &device);
        panic_message(|| plain_step(&mut ModuleOptimizer::from(other), model, &points));
    }
}

#[test]
fn gradients_of_another_module_are_refused() {
    for device in cpu_devices() {
        let device = device.autodiff();
        let points = Points::new(0, &device);
        let sam = SamConfig::new().optimizer(sgd());
        let (model, other) = (Mlp::new(1, &device), Mlp::new(1, &device));
        let grads = other.gradients(&points);
        let message = panic_message(|| sam.first_step(&model, grads));
        assert!(
            message.contains("got 4 gradients, but none belongs to a parameter of the module"),
            "{message}"
        );
    }
}

#[test]
fn a_record_of_another_module_is_refused_and_the_module_kept() {
    let device = cpu_devices()[0].clone().autodiff();
    let sam = SamConfig::new().init(Mlp::new(1, &device));
    let other = burn_sam_tests::linear(1, 2, 2, &device);
    let err = sam
        .clone()
        .try_load_record(other.into_record())
        .unwrap_err();
    assert!(err.to_string().contains("Record validation error"), "{err}");
    assert!(err.to_string().contains("hidden.weight"), "{err}");
    assert!(same_values(&sam, &Mlp::new(1, &device)));
}
