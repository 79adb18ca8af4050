//! Modules of every kind that Burn knows: with running statistics, checkpointed, adapted, frozen,
//! in part without gradients.

use burn::module::{Lora, Module, Param, QLora, Quantizer};
use burn::nn::{Dropout, DropoutConfig, Linear};
use burn::optim::{GradientsParams, ModuleOptimizer, SgdConfig};
use burn::tensor::Tensor;
use burn::tensor::quantization::{Calibration, QuantValue};
use burn::train::TrainStep;
use burn_sam::SamConfig;
use burn_sam_tests::{
    FEATURES, Mlp, NormMlp, Points, TrainingModel, cpu_devices, devices, linear, read,
    same_training, same_values, values,
};

fn sam(rho: f64) -> (SamConfig, ModuleOptimizer) {
    (SamConfig::new().with_rho(rho), SgdConfig::new().init())
}

#[test]
fn running_statistics_count_each_batch_once() {
    for device in devices() {
        let device = device.autodiff();
        // With a learning rate of 0 the weights stay, so all statistics must be those of plain
        // steps; with another one, those of the inputs still must.
        for (lr, compared) in [(0.0, usize::MAX), (0.1, 2 * FEATURES)] {
            let (sam, mut optim) = sam(0.5);
            let mut plain_optim = SgdConfig::new().init();
            let mut model = NormMlp::new(1, &device);
            let mut plain = NormMlp::new(1, &device);
            for step in 0..4 {
                let points = Points::new(step, &device);
                let climbed = sam.climb(model.clone(), model.gradients(&points));
                model = optim.step(lr, model, climbed.gradients(&points));
                let grads = plain.gradients(&points);
                plain = plain_optim.step(lr, plain, grads);

                let (statistics, plain) = (model.statistics(), plain.statistics());
                let compared = compared.min(plain.len());
                assert_eq!(statistics[..compared], plain[..compared]);
            }
            let initial = NormMlp::new(1, &device).statistics();
            assert_ne!(model.statistics(), initial);
        }
    }
}

#[test]
fn a_climbed_module_has_statistics_of_its_own() {
    for device in devices() {
        let device = device.autodiff();
        let points = Points::new(0, &device);
        let (sam, _) = sam(0.5);
        let model = NormMlp::new(1, &device);
        let climbed = sam.climb(model.clone(), model.gradients(&points));
        let before = model.statistics();
        assert_eq!(climbed.statistics(), before);
        climbed.gradients(&points);
        assert_ne!(climbed.statistics(), before);
        assert_eq!(model.statistics(), before);
    }
}

#[test]
fn gradient_checkpointing_stays_on() {
    for device in cpu_devices() {
        let plain = device.clone().autodiff();
        let device = device.autodiff().gradient_checkpointing();
        let (sam, mut optim) = sam(0.5);
        let strategy = |param: &Param<Tensor<2>>| param.val().gradient_checkpointing_strategy();

        let points = Points::new(0, &device);
        let mut model = NormMlp::new(1, &device);
        let given = strategy(&model.hidden.weight);
        assert_ne!(given, strategy(&NormMlp::new(1, &plain).hidden.weight));
        for _ in 0..3 {
            let climbed = sam.climb(model.clone(), model.gradients(&points));
            assert_eq!(strategy(&climbed.hidden.weight), given);
            model = optim.step(0.1, model, climbed.gradients(&points));
            assert_eq!(strategy(&model.hidden.weight), given);
        }
    }
}

#[test]
fn adapters_climb_and_their_frozen_base_stays() {
    for device in cpu_devices() {
        let device = device.autodiff();
        let points = Points::new(0, &device);
        let (sam, mut optim) = sam(0.5);
        let mut model = Mlp::new(1, &device).apply_lora(Lora::new(2, 4.0));
        let base = values(&model);
        for step in 0..3 {
            let climbed = sam.climb(model.clone(), model.gradients(&points));
            assert!(climbed.hidden.weight.adapter().is_some());
            let moved = |module: &Mlp| -> Vec<String> {
                (values(module).into_iter().zip(&base))
                    .filter(|(now, base)| now != *base)
                    .map(|((path, _), _)| path)
                    .collect()
            };
            let lora = |path: &String| path.ends_with(".a") || path.ends_with(".b");
            assert!(!moved(&climbed).is_empty() && moved(&climbed).iter().all(lora));
            model = optim.step(0.1, model, climbed.gradients(&points));
            assert!(
                !moved(&model).is_empty() && moved(&model).iter().all(lora),
                "{step}"
            );
        }
    }
}

/// The same over a base that is packed into small integers.
#[test]
fn adapters_of_a_quantized_base_climb_in_the_learner_too() {
    for device in cpu_devices() {
        let scheme = device.settings().quantization.scheme;
        let scheme = scheme.with_value(QuantValue::Q8S);
        let device = device.autodiff();
        let points = Points::new(0, &device);
        let quantizer = Quantizer::new(Calibration::MinMax, scheme);
        let model = Mlp::new(1, &device).apply_qlora(QLora::new(Lora::new(2, 4.0), quantizer));
        let base = |model: &Mlp| model.hidden.weight.base().into_data();
        let packed = base(&model);
        let wrapped = SamConfig::new().with_rho(0.5).init(model);
        let output = TrainStep::step(&wrapped, points);
        let updated = wrapped.optimize(&mut SgdConfig::new().init(), 0.1.into(), output.grads);
        let updated = updated.into_inner();
        assert_eq!(base(&updated), packed);
        let adapter = updated.hidden.weight.adapter().unwrap();
        assert!(read(adapter.b.val()).iter().any(|b| *b != 0.0));
    }
}

#[test]
fn frozen_parameters_do_not_move() {
    for device in devices() {
        let device = device.autodiff();
        let points = Points::new(0, &device);
        let (sam, mut optim) = sam(0.5);
        let mut model = Mlp::new(1, &device);
        model.hidden = model.hidden.freeze();
        let before = model.clone();
        for _ in 0..3 {
            let climbed = sam.climb(model.clone(), model.gradients(&points));
            assert!(same_values(&climbed.hidden, &before.hidden));
            assert!(!same_values(&climbed.output, &model.output));
            assert!(!climbed.hidden.weight.is_require_grad());
            assert!(climbed.output.weight.is_require_grad());
            model = optim.step(0.1, model, climbed.gradients(&points));
            assert!(same_values(&model.hidden, &before.hidden));
        }

        // All frozen: no gradients at all, nothing to climb along.
        let frozen = Mlp::new(1, &device).freeze();
        let climbed = sam.climb(frozen.clone(), GradientsParams::new());
        assert!(same_values(&*climbed, &frozen));
    }
}

#[test]
fn a_gradient_missing_in_the_first_pass_leaves_its_parameter_out_of_the_ascent() {
    for device in devices() {
        let device = device.autodiff();
        let points = Points::new(0, &device);
        let (sam, mut optim) = sam(0.5);
        let model = Mlp::new(1, &device);
        let mut grads = model.gradients(&points);
        grads.remove::<2>(model.hidden.weight.id);
        let climbed = sam.climb(model.clone(), grads);
        assert_eq!(
            read(climbed.hidden.weight.val()),
            read(model.hidden.weight.val())
        );
        assert!(!same_values(&climbed.output, &model.output));
        // The second pass has its gradient, and it is updated.
        let updated = optim.step(0.1, model.clone(), climbed.gradients(&points));
        assert_ne!(
            read(updated.hidden.weight.val()),
            read(model.hidden.weight.val())
        );
    }
}

#[test]
fn a_gradient_missing_in_the_second_pass_leaves_its_parameter_at_w() {
    for device in devices() {
        let device = device.autodiff();
        let points = Points::new(0, &device);
        let (sam, mut optim) = sam(0.5);
        let model = Mlp::new(1, &device);
        let climbed = sam.climb(model.clone(), model.gradients(&points));
        let mut grads = climbed.gradients(&points);
        grads.remove::<2>(model.hidden.weight.id);
        let updated = optim.step(0.1, model.clone(), grads);
        assert_eq!(
            read(updated.hidden.weight.val()),
            read(model.hidden.weight.val())
        );
        assert!(!same_values(&updated.output, &model.output));
    }
}

/// A module that holds one layer twice, and a part in validation mode.
#[derive(Module, Debug)]
struct Odd {
    layer: Linear,
    same_layer: Linear,
    teacher: Linear,
    dropout: Dropout,
    sleeping_dropout: Dropout,
}

#[test]
fn a_shared_parameter_counts_once_and_sleeping_parts_sleep_on() {
    for device in cpu_devices() {
        let device = device.autodiff();
        let layer = linear(1, FEATURES, 1, &device);
        let model = Odd {
            same_layer: layer.clone(),
            layer,
            teacher: linear(2, FEATURES, 1, &device).valid(),
            dropout: DropoutConfig::new(0.5).init(),
            sleeping_dropout: DropoutConfig::new(0.5).init().valid(),
        };
        let points = Points::new(0, &device);
        let loss = (model.layer.forward(points.x.clone()) + model.same_layer.forward(points.x)
            - model
                .teacher
                .forward(points.y.clone().repeat_dim(1, FEATURES)))
        .square()
        .mean();
        let grads = GradientsParams::from_grads(loss.backward(), &model);
        assert_eq!(grads.len(), 2);

        let climbed = sam(0.5).0.climb(model.clone(), grads);
        let weight = read(climbed.layer.weight.val() - model.layer.weight.val());
        let bias = |layer: &Linear| layer.bias.as_ref().unwrap().val();
        let bias = read(bias(&climbed.layer) - bias(&model.layer));
        let length = (weight.iter().chain(&bias))
            .map(|e| e * e)
            .sum::<f32>()
            .sqrt();
        assert!((length - 0.5).abs() < 1e-6, "{length}");

        assert!(same_values(&climbed.teacher, &model.teacher));
        assert!(!climbed.teacher.weight.is_require_grad());
        assert!(!climbed.teacher.weight.val().is_autodiff());
        let enabled = |dropout: &Dropout| dropout.training.is_enabled();
        assert!(enabled(&climbed.dropout) && !enabled(&climbed.sleeping_dropout));
    }
}

#[derive(Module, Debug)]
struct Nothing {
    dropout: Dropout,
}

#[test]
fn a_module_without_parameters_takes_a_first_step() {
    let model = Nothing {
        dropout: DropoutConfig::new(0.5).init(),
    };
    let climbed = sam(0.5).0.climb(model.clone(), GradientsParams::new());
    assert_eq!(values(&*climbed), []);
}

/// Whatever the gradients hold, SAM does not add to it: with a NaN in the first pass only, a step
/// is the base optimizer's.
#[test]
fn a_nan_in_the_first_pass_costs_the_ascent_and_nothing_else() {
    for device in devices() {
        let device = device.autodiff();
        let points = Points::new(0, &device);
        let (sam, mut optim) = sam(0.5);
        let model = Mlp::new(1, &device);
        let mut grads = model.gradients(&points);
        let id = model.output.weight.id;
        let poisoned = grads.remove::<2>(id).unwrap() * f32::NAN;
        grads.register(id, poisoned);

        let climbed = sam.climb(model.clone(), grads);
        assert!(same_values(&*climbed, &model));
        let updated = optim.step(0.1, model.clone(), climbed.gradients(&points));
        let plain = SgdConfig::new()
            .init()
            .step(0.1, model.clone(), model.gradients(&points));
        assert!(same_training(&updated, &plain));
    }
}

/// Parameters on two devices have one norm.
#[test]
fn the_norm_reaches_across_devices() {
    let [flex, ndarray] = &cpu_devices()[..] else {
        panic!("two CPU devices")
    };
    let (flex, ndarray) = (flex.clone().autodiff(), ndarray.clone().autodiff());
    let split = Mlp {
        hidden: linear(1, FEATURES, 8, &flex),
        output: linear(2, 8, 1, &ndarray),
    };
    let whole = Mlp::new(1, &flex);
    let points = Points::new(0, &flex);
    let hidden = split.hidden.forward(points.x.clone());
    let output = split
        .output
        .forward(burn::tensor::activation::tanh(hidden).to_device(&ndarray));
    let loss = (output - points.y.clone().to_device(&ndarray))
        .square()
        .mean();
    let grads = GradientsParams::from_grads(loss.backward(), &split);

    let climbed = sam(0.5).0.climb(split.clone(), grads);
    let expected = sam(0.5).0.climb(whole.clone(), whole.gradients(&points));
    assert_eq!(climbed.output.weight.val().device(), ndarray);
    for ((path, climbed), (_, expected)) in values(&*climbed).iter().zip(values(&*expected)) {
        for (climbed, expected) in climbed.iter().zip(expected) {
            assert!(
                (climbed - expected).abs() < 1e-6,
                "{path}: {climbed} for {expected}"
            );
        }
    }
}

/// The module that comes out of a first step can itself be trained by any optimizer.
#[test]
fn a_climbed_module_predicts_worse_on_its_batch() {
    for device in devices() {
        let device = device.autodiff();
        let points = Points::new(0, &device);
        let model = Mlp::new(1, &device);
        let climbed = sam(0.1).0.climb(model.clone(), model.gradients(&points));
        let loss = |model: &Mlp| read(model.predict(&points).loss)[0];
        assert!(loss(&climbed) > loss(&model));
    }
}
