//! Loops of one's own: the two steps, the closure form, accumulation, records, `SamOptimizer`, misuse.

use burn::grad_clipping::GradientClippingConfig;
use burn::module::{Lora, Module, ParamGroup};
use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{AdamConfig, GradientsAccumulator, GradientsParams, ModuleOptimizer, SgdConfig};
use burn::tensor::Tensor;
use burn_sam::{Climbed, Descent, SamConfig};
use burn_sam_tests::{
    Mlp, Points, cpu_devices, devices, panic_message, read, same_training, same_values,
};

const LR: f64 = 0.1;

fn sgd() -> SgdConfig {
    SgdConfig::new()
        .with_momentum(Some(MomentumConfig::new()))
        .with_weight_decay(Some(WeightDecayConfig::new(0.01)))
}

fn adam() -> AdamConfig {
    AdamConfig::new()
}

fn plain_step(optim: &mut ModuleOptimizer, model: Mlp, points: &Points) -> Mlp {
    let grads = model.gradients(points);
    optim.step(LR, model, grads)
}

fn sam_step(sam: &SamConfig, optim: &mut ModuleOptimizer, model: Mlp, points: &Points) -> Mlp {
    let grads = model.loss(points).backward();
    let climbed = sam.first_step(model, grads);
    let grads = climbed.loss(points).backward();
    climbed.second_step(optim, LR, grads)
}

#[test]
fn a_rho_of_zero_is_the_base_optimizer_exactly() {
    for device in devices() {
        let device = device.autodiff();
        for base in [sgd().init(), adam().init()] {
            let sam = SamConfig::new().with_rho(0.0);
            let (mut optim, mut plain_optim) = (base.clone(), base);
            let mut model = Mlp::new(1, &device);
            let mut plain = model.clone();
            for step in 0..10 {
                let points = Points::new(step, &device);
                model = sam_step(&sam, &mut optim, model, &points);
                plain = plain_step(&mut plain_optim, plain, &points);
                assert!(same_training(&model, &plain), "step {step} on {device:?}");
            }
        }
    }
}

#[test]
fn a_rho_above_zero_is_not() {
    for device in devices() {
        let device = device.autodiff();
        let points = Points::new(0, &device);
        let model = Mlp::new(1, &device);
        let plain = plain_step(&mut sgd().init(), model.clone(), &points);
        let model = sam_step(&SamConfig::new(), &mut sgd().init(), model, &points);
        assert!(!same_values(&model, &plain));
    }
}

/// The textbook's form, which plain Burn can write: the same to the bit.
#[test]
fn the_two_steps_are_those_of_the_textbook() {
    for device in devices() {
        let device = device.autodiff();
        let sam = SamConfig::new().with_rho(0.5);
        let (mut optim, mut textbook_optim) = (sgd().init(), sgd().init());
        let mut model = Mlp::new(1, &device);
        let mut textbook = model.clone();
        for step in 0..5 {
            let points = Points::new(step, &device);
            model = sam_step(&sam, &mut optim, model, &points);
            let climbed: Climbed<Mlp> = sam.climb(textbook.clone(), textbook.gradients(&points));
            assert!(!same_values(&*climbed, &textbook));
            textbook = textbook_optim.step(LR, textbook, climbed.gradients(&points));
            assert!(
                same_training(&model, &textbook),
                "step {step} on {device:?}"
            );
        }
    }
}

#[test]
fn stepping_back_gives_w_bit_for_bit() {
    for device in devices() {
        let device = device.autodiff();
        let points = Points::new(0, &device);
        let model = Mlp::new(1, &device);
        let climbed = SamConfig::new().first_step(model.clone(), model.loss(&points).backward());
        // Clones are climbed modules too, not the module at w + e(w) that an optimizer would take.
        let clone: Climbed<Mlp> = climbed.clone();
        assert!(!same_values(&*climbed, &model));
        assert!(same_values(&climbed.step_back(), &model));
        assert!(same_values(&clone.step_back(), &model));
    }
}

#[test]
fn micro_batches_climb_each_and_their_second_gradients_add_up() {
    for device in devices() {
        let device = device.autodiff();
        let sam = SamConfig::new().with_rho(0.5);
        let mut model = Mlp::new(1, &device);
        let start = model.clone();
        let batches = [Points::new(0, &device), Points::new(1, &device)];
        let mut accumulator = GradientsAccumulator::new();
        for points in &batches {
            let grads = model.loss(points).backward();
            let climbed = sam.first_step(model, grads);
            let grads = climbed.second_gradients(climbed.loss(points).backward());
            model = climbed.step_back();
            accumulator.accumulate(&model, grads);
        }
        model = SgdConfig::new().init().step(LR, model, accumulator.grads());

        let second = |points: &Points| {
            let climbed = sam.climb(start.clone(), start.gradients(points));
            let grads = climbed.gradients(points);
            grads.get::<2>(start.hidden.weight.id).unwrap()
        };
        let moved = start.hidden.weight.val().inner() - model.hidden.weight.val().inner();
        let sum = second(&batches[0]) + second(&batches[1]);
        for (moved, gradient) in read(moved).into_iter().zip(read(sum)) {
            assert!((moved - LR as f32 * gradient).abs() < 1e-6, "{moved}");
        }
    }
}

#[test]
fn the_closure_form_takes_the_same_steps_and_hands_back_both_passes() {
    for device in devices() {
        let device = device.autodiff();
        let sam = SamConfig::new().with_rho(0.5);
        let (mut optim, mut closure_optim) = (adam().init(), adam().init());
        let mut model = Mlp::new(1, &device);
        let mut closure_model = model.clone();
        for step in 0..5 {
            let points = Points::new(step, &device);
            let climbed = sam.climb(model.clone(), model.gradients(&points));
            let expected = [model.loss(&points), climbed.loss(&points)].map(read);
            model = sam_step(&sam, &mut optim, model, &points);

            let mut passes = 0;
            // Made beforehand, a closure says what it takes.
            let pass = |model: &Mlp| {
                passes += 1;
                let loss = model.loss(&points);
                let grads = loss.backward();
                (loss, grads)
            };
            let (updated, losses): (_, [Tensor<1>; 2]) =
                sam.optimize(&mut closure_optim, LR, closure_model, pass);
            closure_model = updated;
            assert_eq!(passes, 2);
            assert_eq!(losses.map(read), expected);
            assert!(same_training(&model, &closure_model));
        }
    }
}

#[test]
fn a_run_goes_from_plain_to_sam_and_back_through_records() {
    for device in cpu_devices() {
        let device = device.autodiff();
        let points = Points::new(0, &device);
        let sam = SamConfig::new();

        // Plain, SAM, plain; with the same state handed on in memory, and through records.
        let mut optim = adam().init();
        let start = Mlp::new(1, &device);
        let mut model = plain_step(&mut optim, start.clone(), &points);
        model = sam_step(&sam, &mut optim, model, &points);
        model = plain_step(&mut optim, model, &points);

        let mut plain_optim = adam().init();
        let mut resumed = plain_step(&mut plain_optim, start, &points);
        // With a SamOptimizer, whose records are the base's.
        let guard = sam.optimizer(adam().build());
        let mut sam_optim = ModuleOptimizer::from(guard.clone())
            .from_bytes(plain_optim.into_bytes().unwrap())
            .unwrap();
        let climbed = guard.first_step(resumed.clone(), resumed.loss(&points).backward());
        let grads = climbed.loss(&points).backward();
        resumed = climbed.second_step(&mut sam_optim, LR, grads);
        let mut plain_optim = adam()
            .init()
            .from_bytes(sam_optim.into_bytes().unwrap())
            .unwrap();
        resumed = plain_step(&mut plain_optim, resumed, &points);
        assert!(same_training(&model, &resumed));

        // The state did matter.
        let forgetful = plain_step(&mut adam().init(), resumed.clone(), &points);
        let resumed = plain_step(&mut plain_optim, resumed, &points);
        assert!(!same_values(&forgetful, &resumed));
    }
}

/// What the base's configuration asks for holds in every form.
#[test]
fn gradient_clipping_is_of_the_second_gradients() {
    for device in devices() {
        let device = device.autodiff();
        let points = Points::new(0, &device);
        let clipping = GradientClippingConfig::Norm(1e-3);
        let config = SgdConfig::new().with_gradient_clipping(Some(clipping));
        let sam = SamConfig::new().with_rho(0.5);
        let model = Mlp::new(1, &device);

        let climbed = sam.climb(model.clone(), model.gradients(&points));
        let expected = config
            .init()
            .step(LR, model.clone(), climbed.gradients(&points));
        let moved = read(expected.output.weight.val() - model.output.weight.val());
        let length = moved.iter().map(|e| e * e).sum::<f32>().sqrt();
        assert!((length - 1e-3 * LR as f32).abs() < 1e-8, "{length}");

        let two_steps = sam_step(&sam, &mut config.init(), model.clone(), &points);
        assert!(same_training(&two_steps, &expected));
        let pass = |model: &Mlp| ((), model.loss(&points).backward());
        let (closure, _) = sam.optimize(&mut config.init(), LR, model.clone(), pass);
        assert!(same_training(&closure, &expected));
    }
}

#[test]
fn groups_of_base_optimizers_work_under_one_ascent() {
    for device in cpu_devices() {
        let device = device.autodiff();
        let points = Points::new(0, &device);
        let output = ParamGroup::from_predicate("output");
        let mut optim = SgdConfig::new()
            .init()
            .with_group(output, adam().build(), None);
        let model = Mlp::new(1, &device);
        let before = model.clone();
        let model = sam_step(&SamConfig::new(), &mut optim, model, &points);
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
fn a_sam_optimizer_refuses_to_step_without_any_ascent_and_says_what_to_do() {
    for device in cpu_devices() {
        let device = device.autodiff();
        let points = Points::new(0, &device);
        let sam = SamConfig::new().optimizer(sgd().build());
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
        let pass = |model: &Mlp| ((), model.loss(&points).backward());
        let (guarded, _) = sam.optimize(&mut optim, LR, model.clone(), pass);
        let config = SamConfig::new();
        let (unguarded, _) = config.optimize(&mut sgd().init(), LR, model, pass);
        assert!(same_training(&guarded, &unguarded));
        // An optimizer of another family does not count.
        let other = SamConfig::new().optimizer(sgd().build());
        let model = Mlp::new(1, &device);
        panic_message(|| plain_step(&mut ModuleOptimizer::from(other), model, &points));
    }
}

/// With a clone, the module at w can still be had in between; what is then taken of it by mistake is
/// told in the step that it happens in.
#[test]
fn second_gradients_that_are_not_the_climbed_modules_are_refused() {
    for device in devices() {
        let device = device.autodiff();
        let points = Points::new(0, &device);
        let (model, other) = (Mlp::new(1, &device), Mlp::new(1, &device));
        // Also where some parameters do not move, or none does.
        let still = ParamGroup::from_predicate("hidden");
        let configs = [
            SamConfig::new(),
            SamConfig::new().with_group(still, 0.0),
            SamConfig::new().with_rho(0.0),
        ];
        for sam in configs {
            let climbed = || sam.first_step(model.clone(), model.loss(&points).backward());
            for wrong in [&model, &other] {
                let grads = wrong.loss(&points).backward();
                let message = panic_message(|| climbed().second_step(&mut sgd().init(), LR, grads));
                assert!(
                    message.contains("SAM's second step got gradients, but of the 4 parameters"),
                    "{message}"
                );
                assert!(message.contains("climbed.forward(..)"), "{message}");
            }
            let message = panic_message(|| {
                sam.optimize(&mut sgd().init(), LR, model.clone(), |_: &Mlp| {
                    ((), model.loss(&points).backward())
                })
            });
            assert!(message.contains("SAM's second step"), "{message}");
        }
    }
}

/// A loss that reaches only some parameters at first: the others are at w, and still not w's own.
#[test]
fn a_second_loss_at_w_is_refused_whatever_the_first_one_reached() {
    for device in devices() {
        let device = device.autodiff();
        let points = Points::new(0, &device);
        let model = Mlp::new(1, &device);
        let bias = model.output.bias.as_ref().unwrap();
        let only_bias = || bias.val().square().sum().backward();
        let wrong = || model.loss(&points).backward();
        let message = panic_message(|| {
            let climbed = SamConfig::new().first_step(model.clone(), only_bias());
            climbed.second_step(&mut sgd().init(), LR, wrong())
        });
        assert!(
            message.contains("SAM's second step got gradients"),
            "{message}"
        );
        let message = panic_message(|| {
            let climbed = SamConfig::new().climb(model.clone(), GradientsParams::new());
            climbed.second_step(&mut sgd().init(), LR, wrong())
        });
        assert!(
            message.contains("SAM's second step got gradients"),
            "{message}"
        );
    }
}

#[test]
fn gradients_by_parameter_descend_as_a_losss_do() {
    for device in devices() {
        let device = device.autodiff();
        let points = Points::new(0, &device);
        let model = Mlp::new(1, &device);
        let gsam = Descent::Gsam { alpha: 0.4 };
        for sam in [SamConfig::new(), SamConfig::new().with_descent(gsam)] {
            let expected = sam_step(&sam, &mut sgd().init(), model.clone(), &points);
            let climbed = sam.climb(model.clone(), model.gradients(&points));
            let grads = climbed.descent(climbed.gradients(&points));
            let updated = sgd().init().step(LR, climbed.step_back(), grads);
            assert!(same_training(&updated, &expected), "{sam}");
        }
        let climbed = SamConfig::new()
            .with_ascents(2)
            .climb(model.clone(), model.gradients(&points));
        let message = panic_message(|| climbed.descent(climbed.gradients(&points)));
        assert!(message.contains("after 1 of 2 ascents"), "{message}");
    }
}

/// The rho of what is under an adapter would go nowhere.
#[test]
fn a_group_that_matches_only_what_is_under_an_adapter_is_told() {
    for device in cpu_devices() {
        let device = device.autodiff();
        let points = Points::new(0, &device);
        let model = Mlp::new(1, &device).apply_lora(Lora::new(2, 4.0));
        let group = ParamGroup::from_path("hidden.weight");
        let sam = SamConfig::new().with_group(group, 0.25);
        let message = panic_message(|| sam.climb(model.clone(), model.gradients(&points)));
        assert!(
            message.contains("the group with a rho of 0.25"),
            "{message}"
        );
        assert!(message.contains("hidden.weight.lora.a"), "{message}");
        let group = ParamGroup::from_predicate("hidden.weight");
        let sam = SamConfig::new().with_group(group, 0.25);
        let climbed = sam.climb(model.clone(), model.gradients(&points));
        assert!(!same_values(&*climbed, &model));
    }
}

#[test]
fn first_gradients_of_another_module_are_refused() {
    for device in cpu_devices() {
        let device = device.autodiff();
        let points = Points::new(0, &device);
        let sam = SamConfig::new();
        let (model, other) = (Mlp::new(1, &device), Mlp::new(1, &device));
        let message =
            panic_message(|| sam.first_step(model.clone(), other.loss(&points).backward()));
        assert!(
            message.contains("SAM's first step got gradients, but of the 4 parameters"),
            "{message}"
        );
        // Of the same module, but before its last update.
        let updated = plain_step(&mut sgd().init(), model.clone(), &points);
        let message = panic_message(|| sam.first_step(updated, model.loss(&points).backward()));
        assert!(message.contains("after its last update"), "{message}");

        let grads = other.gradients(&points);
        let message = panic_message(|| sam.climb(model, grads));
        assert!(
            message.contains("got 4 gradients, but none belongs to a parameter of the module"),
            "{message}"
        );
    }
}

#[test]
fn a_group_that_matches_nothing_is_told_at_the_first_step() {
    for device in cpu_devices() {
        let device = device.autodiff();
        let points = Points::new(0, &device);
        let group = ParamGroup::from_predicate("batchnorm");
        let sam = SamConfig::new()
            .with_group(ParamGroup::from_predicate("hidden"), 0.1)
            .with_group(group, 0.25);
        let model = Mlp::new(1, &device);
        let expect = |message: String| {
            for part in [
                "the group with a rho of 0.25 matches no parameter",
                "batchnorm",
                "hidden.weight, hidden.bias, output.weight, output.bias",
            ] {
                assert!(message.contains(part), "{message}");
            }
        };
        expect(panic_message(|| {
            sam.climb(model.clone(), model.gradients(&points))
        }));
        expect(panic_message(|| {
            sam_step(&sam, &mut sgd().init(), model.clone(), &points)
        }));
        let learner = sam.init(model.clone());
        expect(panic_message(|| {
            burn::train::TrainStep::step(&learner, points.clone())
        }));
        let batches = [points];
        let flatness = burn_sam::Flatness::new(&model, &batches, Mlp::loss).unwrap();
        expect(flatness.sharpness(&sam).unwrap_err().to_string());
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
