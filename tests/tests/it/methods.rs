//! What holds for each method, and what each method is.

use burn::module::{Lora, Module, Param, ParamGroup};
use burn::nn::Linear;
use burn::optim::{GradientsParams, ModuleOptimizer, SgdConfig};
use burn::tensor::{DType, Device, Tensor, TensorData};
use burn::train::TrainStep;
use burn_sam::{Climbed, Descent, SamConfig};
use burn_sam_tests::{
    Mlp, NormMlp, Points, TrainingModel, cpu_devices, devices, panic_message, pseudo_random,
    random_cases, read, same_values, values,
};
use proptest::prelude::*;

const LR: f64 = 0.1;

fn methods() -> Vec<SamConfig> {
    let sam = SamConfig::new().with_rho(0.3);
    vec![
        sam.clone(),
        sam.clone().with_adaptive(true),
        SamConfig::asam(),
        sam.clone().with_ascents(3),
        sam.clone().with_descent(Descent::Gsam { alpha: 0.4 }),
        sam.clone().with_descent(Descent::Wsam {
            gamma: 0.8,
            decoupled: false,
        }),
        SamConfig::asam()
            .with_ascents(2)
            .with_descent(Descent::Gsam { alpha: 0.4 }),
    ]
}

fn sgd() -> ModuleOptimizer {
    SgdConfig::new().init()
}

/// All ascents, in a loop of one's own.
fn climb<M: TrainingModel>(sam: &SamConfig, model: M, points: &Points) -> Climbed<M> {
    let grads = model.predict(points).loss.backward();
    let mut climbed = sam.first_step(model, grads);
    for _ in 1..sam.ascents() {
        let grads = climbed.predict(points).loss.backward();
        climbed = climbed.climb_on(grads);
    }
    climbed
}

fn step<M: TrainingModel>(sam: &SamConfig, model: M, points: &Points) -> M {
    let climbed = climb(sam, model, points);
    let grads = climbed.predict(points).loss.backward();
    climbed.second_step(&mut sgd(), LR, grads)
}

fn near<M: Module>(a: &M, b: &M, tolerance: f64) {
    for ((path, a), (_, b)) in values(a).iter().zip(values(b)) {
        for (a, b) in a.iter().zip(b) {
            assert!((a - b).abs() <= tolerance, "{path}: {a} for {b}");
        }
    }
}

#[test]
fn the_learner_the_closure_and_the_steps_do_the_same() {
    for device in devices() {
        let device = device.autodiff();
        for sam in methods() {
            let (points, made) = (Points::new(0, &device), || NormMlp::new(1, &device));
            let expected = made();
            let start = expected.clone();
            let expected_model = step(&sam, expected, &points);

            let mut passes = 0;
            let (model, _) = sam.optimize(&mut sgd(), LR, copy_of(&start, made()), |model| {
                passes += 1;
                ((), model.predict(&points).loss.backward())
            });
            assert_eq!(passes, 1 + sam.ascents());
            // Read first: Burn brings running statistics up to date when they are read.
            assert_eq!(model.statistics(), expected_model.statistics(), "{sam}");
            near(&model, &expected_model, 1e-6);

            let wrapped = sam.init(copy_of(&start, made()));
            let grads = TrainStep::step(&wrapped, points.clone()).grads;
            let trained = sgd().step(LR, wrapped, grads).into_inner();
            assert_eq!(trained.statistics(), expected_model.statistics(), "{sam}");
            near(&trained, &expected_model, 1e-6);
            assert!(!same_values(&trained.hidden, &start.hidden));
        }
    }
}

/// The same weights and ids in a module with running statistics of its own.
fn copy_of(model: &NormMlp, mut fresh: NormMlp) -> NormMlp {
    (fresh.hidden, fresh.output) = (model.hidden.clone(), model.output.clone());
    (fresh.norm.gamma, fresh.norm.beta) = (model.norm.gamma.clone(), model.norm.beta.clone());
    (fresh.inputs.gamma, fresh.inputs.beta) =
        (model.inputs.gamma.clone(), model.inputs.beta.clone());
    fresh
}

#[test]
fn a_nan_at_w_leaves_the_base_optimizers_step() {
    for device in devices() {
        let device = device.autodiff();
        let points = Points::new(0, &device);
        let model = Mlp::new(1, &device);
        let plain = sgd().step(LR, model.clone(), model.gradients(&points));
        for bad in [f32::NAN, f32::INFINITY] {
            for sam in methods().into_iter().filter(|sam| sam.ascents() == 1) {
                let mut grads = model.gradients(&points);
                let id = model.output.weight.id;
                let poisoned = grads.remove::<2>(id).unwrap() * bad;
                grads.register(id, poisoned);
                let climbed = sam.climb(model.clone(), grads);
                assert!(same_values(&*climbed, &model));
                let grads = climbed.loss(&points).backward();
                let updated = climbed.second_step(&mut sgd(), LR, grads);
                assert!(same_values(&updated, &plain), "{sam} on {device:?}");
            }
        }
    }
}

#[test]
fn without_any_gradient_at_w_it_is_the_base_optimizers_step() {
    for device in cpu_devices() {
        let device = device.autodiff();
        let points = Points::new(0, &device);
        let model = Mlp::new(1, &device);
        let plain = sgd().step(LR, model.clone(), model.gradients(&points));
        for sam in methods().into_iter().filter(|sam| sam.ascents() == 1) {
            let climbed = sam.climb(model.clone(), GradientsParams::new());
            let grads = climbed.loss(&points).backward();
            let updated = climbed.second_step(&mut sgd(), LR, grads);
            assert!(same_values(&updated, &plain), "{sam}");
        }
    }
}

#[test]
fn frozen_parameters_and_a_base_under_adapters_stay() {
    for device in devices() {
        let device = device.autodiff();
        let points = Points::new(0, &device);
        for sam in methods() {
            let mut model = Mlp::new(1, &device);
            model.hidden = model.hidden.freeze();
            let updated = step(&sam, model.clone(), &points);
            assert!(same_values(&updated.hidden, &model.hidden), "{sam}");
            assert!(!same_values(&updated.output, &model.output), "{sam}");

            let model = Mlp::new(1, &device).apply_lora(Lora::new(2, 4.0));
            let updated = step(&sam, model.clone(), &points);
            let moved: Vec<String> = (values(&updated).into_iter().zip(values(&model)))
                .filter(|(now, before)| now != before)
                .map(|((path, _), _)| path)
                .collect();
            let adapters = |path: &String| path.ends_with(".a") || path.ends_with(".b");
            assert!(!moved.is_empty() && moved.iter().all(adapters), "{moved:?}");
        }
    }
}

#[test]
fn a_parameter_without_a_gradient_at_w_descends_along_the_second_one_alone() {
    for device in devices() {
        let device = device.autodiff();
        let points = Points::new(0, &device);
        let model = Mlp::new(1, &device);
        for sam in methods().into_iter().filter(|sam| sam.ascents() == 1) {
            let mut grads = model.gradients(&points);
            let id = model.hidden.weight.id;
            grads.remove::<2>(id);
            let climbed = sam.climb(model.clone(), grads);
            let h = climbed.gradients(&points).get::<2>(id).unwrap();
            let grads = climbed.second_gradients(climbed.loss(&points).backward());
            assert_eq!(read(grads.get::<2>(id).unwrap()), read(h), "{sam}");
        }
    }
}

#[test]
fn the_limits_of_gsam_and_wsam_are_sam_and_the_base() {
    for device in devices() {
        let device = device.autodiff();
        let points = Points::new(0, &device);
        let model = Mlp::new(1, &device);
        let sam = SamConfig::new().with_rho(0.3);
        let of = |descent| step(&sam.clone().with_descent(descent), model.clone(), &points);
        let plain = sgd().step(LR, model.clone(), model.gradients(&points));
        let expected = step(&sam, model.clone(), &points);
        assert!(same_values(&of(Descent::Gsam { alpha: 0.0 }), &expected));
        assert!(same_values(
            &of(Descent::Wsam {
                gamma: 0.5,
                decoupled: false
            }),
            &expected
        ));
        assert!(same_values(
            &of(Descent::Wsam {
                gamma: 0.0,
                decoupled: false
            }),
            &plain
        ));
        for descent in [
            Descent::Gsam { alpha: 0.4 },
            Descent::Wsam {
                gamma: 0.8,
                decoupled: false,
            },
        ] {
            let other = of(descent);
            assert!(!same_values(&other, &expected) && !same_values(&other, &plain));
        }
    }
}

fn matrix(seed: u64, device: &Device) -> Param<Tensor<2>> {
    let values: Vec<f64> = pseudo_random(seed, 6).into_iter().map(f64::from).collect();
    let data = TensorData::new(values, [2, 3]);
    Param::from_tensor(Tensor::from_data(data, (device, DType::F64)))
}

fn vector(seed: u64, device: &Device) -> Tensor<1> {
    let values: Vec<f64> = pseudo_random(seed, 3).into_iter().map(f64::from).collect();
    Tensor::from_data(TensorData::new(values, [3]), (device, DType::F64))
}

fn exact<const D: usize>(tensor: &Tensor<D>) -> Vec<f64> {
    tensor.clone().into_data().iter::<f64>().collect()
}

/// Algorithm 1 of ASAM, as its authors' code has it: T is |w| + 0.01 for weights and 1 for biases.
#[test]
fn asam_is_its_authors_equation_in_f64() {
    for device in cpu_devices() {
        let device = device.autodiff();
        let layer = Linear {
            weight: matrix(1, &device),
            bias: Some(Param::from_tensor(vector(2, &device))),
        };
        let bias = layer.bias.as_ref().unwrap();
        let mut grads = GradientsParams::new();
        let inner = device.clone().inner();
        grads.register(layer.weight.id, matrix(3, &inner).val());
        grads.register(bias.id, vector(4, &inner));
        let (g, g_bias) = (exact(&matrix(3, &inner).val()), exact(&vector(4, &inner)));
        let (w, b) = (exact(&layer.weight.val()), exact(&bias.val()));

        let t: Vec<f64> = w.iter().map(|w| w.abs() + 0.01).collect();
        let squares = t.iter().zip(&g).map(|(t, g)| (t * g).powi(2)).sum::<f64>();
        let norm = (squares + g_bias.iter().map(|g| g * g).sum::<f64>()).sqrt();
        let scale = 0.5 / (norm + 1e-12);
        let climbed = SamConfig::asam().climb(layer.clone(), grads);
        for (i, climbed) in exact(&climbed.weight.val()).into_iter().enumerate() {
            let expected = w[i] + scale * t[i] * t[i] * g[i];
            assert!(
                (climbed - expected).abs() < 1e-14,
                "{climbed} for {expected}"
            );
        }
        let climbed_bias = exact(&climbed.bias.as_ref().unwrap().val());
        for (i, climbed) in climbed_bias.into_iter().enumerate() {
            let expected = b[i] + scale * g_bias[i];
            assert!(
                (climbed - expected).abs() < 1e-14,
                "{climbed} for {expected}"
            );
        }
    }
}

#[test]
fn too_few_and_too_many_ascents_are_told() {
    for device in cpu_devices() {
        let device = device.autodiff();
        let points = Points::new(0, &device);
        let sam = SamConfig::new().with_ascents(2);
        let climbed = || {
            let model = Mlp::new(1, &device);
            let grads = model.loss(&points).backward();
            sam.first_step(model, grads)
        };
        let message = panic_message(|| {
            let climbed = climbed();
            let grads = climbed.loss(&points).backward();
            climbed.second_step(&mut sgd(), LR, grads)
        });
        assert!(message.contains("after 1 of 2 ascents"), "{message}");
        assert!(message.contains("Climbed::climb_on"), "{message}");
        let message = panic_message(|| {
            let mut climbed = climbed();
            for _ in 0..2 {
                let grads = climbed.loss(&points).backward();
                climbed = climbed.climb_on(grads);
            }
        });
        assert!(message.contains("would be ascent 3 of 2"), "{message}");
        let message = panic_message(|| {
            let climbed = climbed();
            let other = Mlp::new(1, &device).loss(&points).backward();
            climbed.climb_on(other)
        });
        assert!(
            message.contains("SAM's next ascent got gradients"),
            "{message}"
        );
    }
}

/// SAM-ON, the guide's recipe: norm layers climb and nothing else does.
#[test]
fn sam_on_normalization_layers_alone() {
    for device in devices() {
        let device = device.autodiff();
        let points = Points::new(0, &device);
        let sam = SamConfig::new()
            .with_rho(0.0)
            .with_group(ParamGroup::from_regex(r"(^|\.)(gamma|beta)$").unwrap(), 0.3);
        let model = NormMlp::new(1, &device);
        let before = model.clone();
        let climbed = climb(&sam, model, &points);
        assert!(same_values(&climbed.hidden, &before.hidden));
        assert!(same_values(&climbed.output, &before.output));
        for (climbed, before) in [
            (&climbed.norm, &before.norm),
            (&climbed.inputs, &before.inputs),
        ] {
            assert_ne!(read(climbed.gamma.val()), read(before.gamma.val()));
            assert_ne!(read(climbed.beta.val()), read(before.beta.val()));
        }
    }
}

proptest! {
    #![proptest_config(random_cases(48))]

    /// The equations of GSAM and WSAM, in f64 on the host.
    #[test]
    fn descents_are_their_equations(
        seeds in any::<[u64; 2]>(),
        sizes in (-3..=3i32, -3..=3i32),
        parameter in 0.0..0.95f64,
    ) {
        let part = |seed: u64, size: i32| -> [Vec<f64>; 2] {
            let scale = 10f64.powi(size);
            let all: Vec<f64> = pseudo_random(seed, 9).into_iter().map(|v| f64::from(v) * scale).collect();
            [all[..6].to_vec(), all[6..].to_vec()]
        };
        let (g, h) = (part(seeds[0], sizes.0), part(seeds[1], sizes.1));
        let dot = |a: &[Vec<f64>; 2], b: &[Vec<f64>; 2]| -> f64 {
            a.iter().flatten().zip(b.iter().flatten()).map(|(a, b)| a * b).sum()
        };
        for device in devices() {
            let dtype = match device.supports_dtype(DType::F64) {
                true => DType::F64,
                false => DType::F32,
            };
            let tolerance = if dtype == DType::F64 { 1e-12 } else { 1e-5 };
            let tensor = |values: &[f64]| Tensor::<1>::from_data(
                TensorData::new(values.to_vec(), [values.len()]),
                (&device, dtype),
            );
            // A loss with the gradients h wherever it is taken.
            let weights = || Param::from_tensor(Tensor::from_inner(tensor(&[0.5; 3])));
            let both = Two { six: Param::from_tensor(Tensor::from_inner(tensor(&[0.5; 6]))), three: weights() };
            let loss = |two: &Two| {
                (two.six.val() * Tensor::from_inner(tensor(&h[0]))).sum()
                    + (two.three.val() * Tensor::from_inner(tensor(&h[1]))).sum()
            };
            let [gg, gh, hh] = [dot(&g, &g), dot(&g, &h), dot(&h, &h)];
            let a = parameter / (1.0 - parameter);
            for (descent, x, y) in [
                (Descent::Gsam { alpha: parameter }, 1.0 + parameter * gh / hh, -parameter),
                (Descent::Wsam { gamma: parameter, decoupled: false }, a, 1.0 - a),
            ] {
                let mut grads = GradientsParams::new();
                grads.register(both.six.id, tensor(&g[0]));
                grads.register(both.three.id, tensor(&g[1]));
                let climbed = SamConfig::new().with_descent(descent).climb(both.clone(), grads);
                let combined = climbed.second_gradients(loss(&climbed).backward());
                let got = [both.six.id, both.three.id]
                    .map(|id| exact(&combined.get::<1>(id).unwrap()));
                let scale = x.abs() * hh.sqrt() + y.abs() * gg.sqrt();
                for ((got, g), h) in got.iter().flatten().zip(g.iter().flatten()).zip(h.iter().flatten()) {
                    let expected = x * h + y * g;
                    prop_assert!((got - expected).abs() <= tolerance * scale, "{got} for {expected}");
                }
            }
        }
    }
}

#[derive(Module, Debug)]
struct Two {
    six: Param<Tensor<1>>,
    three: Param<Tensor<1>>,
}
