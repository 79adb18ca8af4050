//! What holds for each method, and what each method is.

use burn::module::{Lora, Module, Param, ParamGroup};
use burn::nn::Linear;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{
    GradientsAccumulator, GradientsParams, ModuleOptimizer, MultiGradientsParams, SgdConfig,
};
use burn::store::ModuleRecord;
use burn::tensor::{DType, Device, Tensor, TensorData};
use burn::train::{InferenceStep, TrainStep};
use burn_sam::{Ascent, Between, Climbed, Descent, Radius, SamConfig, SamModel};
use burn_sam_tests::{
    FEATURES, Mlp, NormMlp, Points, TrainingModel, auto_looksam, cpu_devices, devices, linear,
    panic_message, pseudo_random, random_cases, read, same_training, same_values, values,
};
use proptest::prelude::*;

const LR: f64 = 0.1;

/// Those that keep something from step to step, and those that do not climb at every step.
pub(crate) fn with_memory() -> Vec<SamConfig> {
    let sam = SamConfig::new().with_rho(0.3);
    vec![
        SamConfig::msam().with_rho(0.3),
        SamConfig::looksam().with_rho(0.3).with_every(3),
        SamConfig::friendly().with_rho(0.3),
        SamConfig::friendly()
            .with_rho(0.3)
            .with_every(2)
            .with_start(1),
        sam.clone().with_every(3),
        sam.clone().with_start(2),
        sam.clone().with_descent(Descent::Wsam {
            gamma: 0.8,
            decoupled: true,
        }),
        SamConfig::auto_two_pass(),
        SamConfig::auto(),
        SamConfig::msam()
            .with_rho(0.3)
            .with_descent(Descent::Limited),
        auto_looksam().with_every(3),
        SamConfig::friendly().with_radius(Radius::Rule { rise: 0.7 }),
        sam.clone().with_ascent(Ascent::Vasso { theta: 0.4 }),
        sam.clone().with_radius(Radius::LeSam {
            sigma: 0.1,
            anneal: Some([2, 6]),
        }),
        SamConfig::msam().with_radius(Radius::Raised { steps: 4 }),
        sam.clone()
            .with_start(1)
            .with_radius(Radius::Raised { steps: 3 }),
        sam.with_radius(FOLLOWING),
    ]
}

/// GSAM's rule, for a learning rate that stays.
const FOLLOWING: Radius = Radius::LearningRate {
    rho_min: 0.1,
    lr_min: 0.0,
    lr_max: 0.15,
};

pub(crate) fn all_methods() -> Vec<SamConfig> {
    methods().into_iter().chain(with_memory()).collect()
}

/// Those whose steps are all alike, and can be written out.
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
        sam.clone().with_descent(Descent::Limited),
        sam.clone().with_ascents(2).with_descent(Descent::Limited),
        sam.with_radius(Radius::LeSam {
            sigma: 0.1,
            anneal: None,
        }),
        SamConfig::asam().with_descent(Descent::Limited),
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

pub(crate) fn near<M: Module>(a: &M, b: &M, tolerance: f64) {
    for ((path, a), (_, b)) in values(a).iter().zip(values(b)) {
        for (a, b) in a.iter().zip(b) {
            assert!((a - b).abs() <= tolerance, "{path}: {a} for {b}");
        }
    }
}

/// Running statistics: a batch that is counted twice moves them by a tenth of what it holds.
fn near_all(a: &[f32], b: &[f32]) {
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(b) {
        assert!((a - b).abs() <= 1e-5 * (1.0 + b.abs()), "{a} for {b}");
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
            near_all(&model.statistics(), &expected_model.statistics());
            near(&model, &expected_model, 1e-6);

            let wrapped = sam.init(copy_of(&start, made()));
            let grads = TrainStep::step(&wrapped, points.clone()).grads;
            let trained = sgd().step(LR, wrapped, grads).into_inner();
            near_all(&trained.statistics(), &expected_model.statistics());
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

/// The Learner's hooks, as its strategies call them.
fn learn<M>(model: SamModel<M>, optim: &mut ModuleOptimizer, batches: &[&Points]) -> SamModel<M>
where
    M: Module + TrainStep<Input = Points>,
{
    let mut accumulator = GradientsAccumulator::new();
    for points in batches {
        accumulator.accumulate(&model, TrainStep::step(&model, (*points).clone()).grads);
    }
    TrainStep::optimize(model, optim, LR.into(), accumulator.grads())
}

fn momentum() -> ModuleOptimizer {
    SgdConfig::new()
        .with_momentum(Some(MomentumConfig::new()))
        .init()
}

fn batches(device: &Device) -> Vec<Points> {
    (0..7).map(|seed| Points::new(seed, device)).collect()
}

#[test]
fn steps_in_a_loop_are_those_of_the_learner() {
    for device in devices() {
        let device = device.autodiff();
        for sam in all_methods() {
            let start = NormMlp::new(1, &device);
            let mut model = copy_of(&start, NormMlp::new(1, &device));
            let mut wrapped = sam.init(copy_of(&start, NormMlp::new(1, &device)));
            let mut steps = sam.steps(&model);
            let (mut optim, mut learner_optim) = (momentum(), momentum());
            for points in &batches(&device) {
                (model, _) = steps.minimize(&mut optim, LR, model, |model: &NormMlp| {
                    model.predict(points).loss
                });
                wrapped = learn(wrapped, &mut learner_optim, &[points]);
                near_all(&wrapped.statistics(), &model.statistics());
            }
            near(&*wrapped, &model, 1e-5);
            assert!(!same_values(&model.hidden, &start.hidden));
            // Each batch is counted once, whatever the method: the inputs' statistics tell.
            let plain = NormMlp::new(1, &device);
            for points in &batches(&device) {
                plain.predict(points);
            }
            let of_inputs = |model: &NormMlp| model.statistics()[..2 * FEATURES].to_vec();
            near_all(&of_inputs(&model), &of_inputs(&plain));
        }
    }
}

/// A batch twice, with the sum of the two gradients and half of the learning rate, is the batch once: what
/// is remembered is a mean, or its length does not matter.
#[test]
fn accumulation_remembers_as_one_batch_does() {
    for device in devices() {
        let device = device.autodiff();
        // What follows the learning rate sees that it is another.
        for sam in all_methods()
            .into_iter()
            .filter(|sam| sam.radius() != FOLLOWING)
        {
            let start = Mlp::new(1, &device);
            let (mut once, mut twice) = (sam.init(start.clone()), sam.init(start.clone()));
            let (mut optim, mut optim_of_twice) = (sgd(), sgd());
            for points in &batches(&device) {
                once = learn(once, &mut optim, &[points]);
                let mut accumulator = GradientsAccumulator::new();
                for _ in 0..2 {
                    let grads = TrainStep::step(&twice, points.clone()).grads;
                    accumulator.accumulate(&twice, grads);
                }
                let lr = (LR / 2.0).into();
                twice = TrainStep::optimize(twice, &mut optim_of_twice, lr, accumulator.grads());
            }
            near(&*twice, &*once, 1e-5);
        }
    }
}

/// Each device's gradients on their own, as Burn's sharded strategy hands them over.
#[test]
fn several_devices_remember_as_accumulation_does() {
    for device in cpu_devices() {
        let device = device.autodiff();
        for sam in all_methods() {
            let start = Mlp::new(1, &device);
            let (mut one, mut several) = (sam.init(start.clone()), sam.init(start.clone()));
            let (mut optim, mut optim_of_several) = (momentum(), momentum());
            let points = batches(&device);
            for pair in points.windows(2) {
                one = learn(one, &mut optim, &[&pair[0], &pair[1]]);
                let mut grads = MultiGradientsParams::default();
                for points in pair {
                    let worker = several.clone().fork(&device);
                    let step = TrainStep::step(&worker, points.clone());
                    grads.grads.push((step.grads, device.clone().inner()));
                }
                several =
                    TrainStep::optimize_multi(several, &mut optim_of_several, LR.into(), grads);
            }
            near(&*several, &*one, 1e-5);
        }
    }
}

#[test]
fn a_run_that_is_interrupted_at_an_odd_step_goes_on_exactly() {
    for device in devices() {
        let device = device.autodiff();
        for sam in all_methods() {
            let (points, start) = (batches(&device), Mlp::new(1, &device));
            let (mut whole, mut optim) = (sam.init(start.clone()), momentum());
            let (mut model, mut loop_optim) = (start.clone(), momentum());
            let mut steps = sam.steps(&model);
            for points in &points[..4] {
                whole = learn(whole, &mut optim, &[points]);
                (model, _) = steps.minimize(&mut loop_optim, LR, model, |m| m.loss(points));
            }
            let through_bytes = |record: ModuleRecord| {
                ModuleRecord::from_bytes(record.into_bytes().unwrap()).unwrap()
            };
            let fresh = || Mlp::new(9, &device);
            let record = through_bytes(whole.clone().into_record());
            let mut resumed = sam.init(fresh()).try_load_record(record).unwrap();
            let mut resumed_optim = momentum().from_bytes(optim.into_bytes().unwrap()).unwrap();
            let mut resumed_steps = sam.steps(&fresh());
            let record = through_bytes(steps.record(model.clone()));
            let mut resumed_model = resumed_steps.try_load_record(fresh(), record).unwrap();
            let mut resumed_loop_optim = momentum()
                .from_bytes(loop_optim.into_bytes().unwrap())
                .unwrap();
            for points in &points[4..] {
                whole = learn(whole, &mut optim, &[points]);
                resumed = learn(resumed, &mut resumed_optim, &[points]);
                (model, _) = steps.minimize(&mut loop_optim, LR, model, |m| m.loss(points));
                (resumed_model, _) =
                    resumed_steps.minimize(&mut resumed_loop_optim, LR, resumed_model, |m| {
                        m.loss(points)
                    });
            }
            assert!(same_training(&*resumed, &*whole), "{sam} on {device:?}");
            assert!(same_training(&resumed_model, &model), "{sam} on {device:?}");
        }
    }
}

#[test]
fn records_with_and_without_memory_load_into_one_another() {
    let device = cpu_devices()[0].clone().autodiff();
    let points = Points::new(0, &device);
    let trained = |sam: &SamConfig| {
        let model = sam.init(Mlp::new(1, &device));
        learn(model, &mut sgd(), &[&points])
    };
    for from in all_methods() {
        let record = trained(&from).into_record();
        for into in all_methods() {
            let loaded = into
                .init(Mlp::new(5, &device))
                .try_load_record(record.clone());
            let loaded = loaded.unwrap_or_else(|error| panic!("{from} into {into}: {error}"));
            let expected = record_of(&record, &device);
            assert!(same_values(&*loaded, &expected), "{from} into {into}");
            // And it trains.
            learn(loaded, &mut sgd(), &[&points]);
        }
        // Plain Burn is told what is left over, and loads it if that is allowed.
        let plain = Mlp::new(5, &device).try_load_record(record.clone());
        let keeps = from != SamConfig::new() && with_memory().contains(&from);
        match (keeps, plain) {
            (false, plain) => drop(plain.unwrap()),
            (true, Ok(_)) => panic!("{from}"),
            (true, Err(error)) => assert!(error.to_string().contains("sam."), "{error}"),
        }
        // A record of another module is still refused.
        let other = burn_sam_tests::linear(1, 2, 2, &device).into_record();
        let error = from
            .init(Mlp::new(1, &device))
            .try_load_record(other)
            .unwrap_err();
        assert!(error.to_string().contains("hidden.weight"), "{error}");
    }
}

/// The model in a record, whatever is beside it.
fn record_of(record: &ModuleRecord, device: &Device) -> Mlp {
    let record = record.clone().allow_unused(true);
    Mlp::new(6, device).try_load_record(record).unwrap()
}

#[test]
fn what_is_remembered_moves_with_the_device() {
    let [flex, ndarray] = &cpu_devices()[..] else {
        panic!("two CPU devices")
    };
    let (flex, ndarray) = (flex.clone().autodiff(), ndarray.clone().autodiff());
    for sam in all_methods() {
        let train = |other: &Device| {
            let (mut model, mut optim) = (sam.init(Mlp::new(1, &flex)), momentum());
            for (step, seed) in (0..6).enumerate() {
                if step == 2 {
                    model = model.fork(other);
                }
                let device = model.devices()[0].clone().autodiff();
                model = learn(model, &mut optim, &[&Points::new(seed, &device)]);
            }
            model
        };
        let (stayed, moved) = (train(&flex), train(&ndarray));
        assert_eq!(moved.hidden.weight.device(), ndarray);
        near(&*moved, &*stayed, 1e-5);
    }
}

/// MSAM's passes are at w + e(w), and w is what is validated, saved and returned.
#[test]
fn msam_keeps_w_to_itself() {
    for device in devices() {
        let device = device.autodiff();
        let points = batches(&device);
        let sam = SamConfig::msam().with_rho(0.4);
        let (mut model, mut optim) = (sam.init(Mlp::new(1, &device)), sgd());
        let (mut by_hand, mut hand_optim) = (Mlp::new(1, &device), sgd());
        by_hand = by_hand.load_record(model.clone().into_inner().into_record());
        let mut climbed = by_hand.clone();
        for points in &points {
            let loss = read(climbed.loss(points));
            let step = TrainStep::step(&model, points.clone());
            // Metrics see the climbed pass.
            for (seen, loss) in read(step.item.loss).into_iter().zip(loss) {
                assert!((seen - loss).abs() < 1e-5);
            }
            model = TrainStep::optimize(model, &mut optim, LR.into(), step.grads);
            let grads = climbed.gradients(points);
            let before = by_hand.clone();
            by_hand = hand_optim.step(LR, by_hand, grads);
            near(&*model, &by_hand, 1e-5);
            assert_eq!(
                read(InferenceStep::step(&model.valid(), points.clone()).loss),
                read(model.loss(points))
            );
            // e(w) is rho long, along the update.
            let mut grads = GradientsParams::new();
            let update = |after: &Param<Tensor<2>>, before: &Param<Tensor<2>>| {
                after.val().inner() - before.val().inner()
            };
            let update_of_bias = |after: &Linear, before: &Linear| {
                let bias = |layer: &Linear| layer.bias.as_ref().unwrap().val().inner();
                bias(after) - bias(before)
            };
            for (after, before) in [
                (&by_hand.hidden, &before.hidden),
                (&by_hand.output, &before.output),
            ] {
                grads.register(after.weight.id, update(&after.weight, &before.weight));
                let id = after.bias.as_ref().unwrap().id;
                grads.register(id, update_of_bias(after, before));
            }
            climbed = (*SamConfig::new().with_rho(0.4).climb(by_hand.clone(), grads)).clone();
        }
    }
}

/// L(w) = sum(c w⁴ / 4 + b w), with a b for each batch: gradients that plain code can write.
struct Quartic;

impl Quartic {
    const C: [f64; 4] = [1.0, 2.0, 0.5, 3.0];

    fn b(step: usize) -> [f64; 4] {
        let values = pseudo_random(step as u64 + 1, 4);
        core::array::from_fn(|i| 0.3 * f64::from(values[i]))
    }

    fn gradient(w: [f64; 4], step: usize) -> [f64; 4] {
        core::array::from_fn(|i| Self::C[i] * w[i].powi(3) + Self::b(step)[i])
    }

    fn loss(weights: &Param<Tensor<1>>, step: usize) -> Tensor<1> {
        let on = |values: [f64; 4]| {
            let data = TensorData::new(values.to_vec(), [4]);
            Tensor::<1>::from_data(data, (&weights.val().device(), DType::F64))
        };
        let w = weights.val();
        (w.clone().powi_scalar(4) * on(Self::C) * 0.25 + w * on(Self::b(step))).sum()
    }
}

fn dot(a: [f64; 4], b: [f64; 4]) -> f64 {
    (0..4).map(|i| a[i] * b[i]).sum()
}

fn plus(a: [f64; 4], b: [f64; 4], scale: f64) -> [f64; 4] {
    core::array::from_fn(|i| a[i] + scale * b[i])
}

/// LookSAM's algorithm 1 over the whole model, steps without an ascent, and a start, in plain f64.
#[test]
fn looksam_and_steps_without_an_ascent_are_their_equations_in_f64() {
    let rho = 0.2;
    for (every, alpha, first) in [(3, 0.5, 0), (2, 0.0, 0), (4, 0.7, 3), (3, 0.0, 2)] {
        for device in cpu_devices() {
            let device = device.autodiff();
            let start = [0.9, -0.7, 0.4, 0.2];
            let data = TensorData::new(start.to_vec(), [4]);
            let tensor = Tensor::<1>::from_data(data, (&device, DType::F64));
            let mut weights = Param::from_tensor(tensor);
            let sam = SamConfig::looksam()
                .with_rho(rho)
                .with_every(every)
                .with_start(first)
                .with_between(match alpha {
                    0.0 => Between::Plain,
                    alpha => Between::Looksam { alpha },
                });
            let mut steps = sam.steps(&weights);
            let mut optim = sgd();
            let (mut w, mut v) = (start, [0.0; 4]);
            for step in 0..10 {
                let (updated, passes) = steps.optimize(&mut optim, LR, weights, |weights| {
                    let loss = Quartic::loss(weights, step);
                    let grads = loss.backward();
                    (loss, grads)
                });
                weights = updated;

                let g = Quartic::gradient(w, step);
                let climbs = step >= first && (step - first) % every == 0;
                assert!(passes.at_w.is_some());
                assert_eq!(passes.climbed.is_some(), climbs);
                let descent = if climbs {
                    let climbed = plus(w, g, rho / (dot(g, g).sqrt() + 1e-12));
                    let h = Quartic::gradient(climbed, step);
                    v = plus(h, g, -dot(g, h) / dot(g, g));
                    h
                } else if step < first || alpha == 0.0 {
                    g
                } else {
                    plus(g, v, alpha * (dot(g, g) / dot(v, v)).sqrt())
                };
                w = plus(w, descent, -LR);
                for (got, expected) in exact(&weights.val()).into_iter().zip(w) {
                    assert!((got - expected).abs() < 1e-13, "{got} for {expected}");
                }
            }
        }
    }
}

#[test]
fn a_rho_of_zero_between_plain_steps_is_the_base_and_every_step_is_sam() {
    for device in devices() {
        let device = device.autodiff();
        let train = |sam: &SamConfig| {
            let (mut model, mut optim) = (sam.init(Mlp::new(1, &device)), momentum());
            for points in &batches(&device) {
                model = learn(model, &mut optim, &[points]);
            }
            model.into_inner()
        };
        let plain = batches(&device).iter().fold(
            (Mlp::new(1, &device), momentum()),
            |(model, mut optim), points| {
                let grads = model.gradients(points);
                (optim.step(LR, model, grads), optim)
            },
        );
        let zero = SamConfig::new().with_rho(0.0);
        for sam in [zero.clone().with_every(3), zero.clone().with_start(2)] {
            assert!(same_training(&train(&sam), &plain.0));
        }
        let sam = SamConfig::new().with_rho(0.3);
        assert!(same_training(
            &train(&sam.clone().with_start(100)),
            &plain.0
        ));
        let message = panic_message(|| {
            let idle = (sam.clone()).with_between(Between::Looksam { alpha: 0.5 });
            train(&idle)
        });
        assert!(message.contains("there is none between"), "{message}");
    }
}

/// Whatever the gradients hold, no method adds a way of its own to poison weights or what it keeps.
#[test]
fn a_step_of_nans_at_w_is_forgotten() {
    for device in devices() {
        let device = device.autodiff();
        let points = batches(&device);
        for sam in with_memory() {
            let mut model = Mlp::new(1, &device);
            let mut steps = sam.steps(&model);
            for (step, points) in points.iter().enumerate() {
                let mut passes = 0;
                (model, _) = steps.minimize(&mut sgd(), LR, model, |model: &Mlp| {
                    passes += 1;
                    // The first pass of the climbing step 3; with MSAM there is no such pass.
                    let bad = step == 3 && passes == 1 && sam.ascent() != Ascent::Msam;
                    let loss = model.loss(points);
                    if bad { loss * f32::NAN } else { loss }
                });
                assert!(read(steps.rho())[0].is_finite(), "{sam} at {step}");
                // With a pass at w alone, it is the base optimizer's to refuse it.
                if passes == 1 && step == 3 && sam.ascent() != Ascent::Msam {
                    break;
                }
                let finite = |(_, values): (String, Vec<f64>)| values.iter().all(|v| v.is_finite());
                assert!(values(&model).into_iter().all(finite), "{sam} at {step}");
            }
        }
    }
}

#[test]
fn a_method_that_keeps_something_is_refused_where_nothing_can_be_kept() {
    let device = cpu_devices()[0].clone().autodiff();
    let points = Points::new(0, &device);
    for sam in with_memory() {
        let model = Mlp::new(1, &device);
        let grads = model.loss(&points).backward();
        let message = panic_message(|| sam.first_step(model, grads));
        assert!(message.contains("SamSteps::optimize"), "{message}");
        let message = panic_message(|| {
            sam.optimize(&mut sgd(), LR, Mlp::new(1, &device), |model: &Mlp| {
                ((), model.loss(&points).backward())
            })
        });
        assert!(message.contains("SamConfig::steps"), "{message}");
    }
}

#[test]
fn what_makes_no_sense_together_is_refused_with_its_reason() {
    let gsam = Descent::Gsam { alpha: 0.1 };
    let looksam = Between::Looksam { alpha: 0.5 };
    for (message, expected) in [
        (
            panic_message(|| SamConfig::msam().with_every(2)),
            "every step of MSAM takes one pass",
        ),
        (
            panic_message(|| SamConfig::msam().with_ascents(2)),
            "MSAM climbs along the last update",
        ),
        (
            panic_message(|| SamConfig::msam().with_ascent_fraction(0.5)),
            "MSAM climbs along the last update",
        ),
        (
            panic_message(|| SamConfig::msam().with_descent(gsam)),
            "MSAM takes no gradient at w",
        ),
        (
            panic_message(|| SamConfig::friendly().with_between(looksam)),
            "one is the most",
        ),
        (
            panic_message(|| SamConfig::looksam().with_descent(gsam)),
            "LookSAM says itself what the base optimizer gets",
        ),
    ] {
        assert!(message.starts_with("SamConfig: "), "{message}");
        assert!(message.contains("do not go together"), "{message}");
        assert!(message.contains(expected), "{message}");
    }
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
                assert!(same_training(&updated, &plain), "{sam} on {device:?}");
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
            assert!(same_training(&updated, &plain), "{sam}");
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
        // Limited, it is shorter.
        let is_as_long = |sam: &SamConfig| sam.descent() != Descent::Limited;
        for sam in methods()
            .into_iter()
            .filter(|sam| sam.ascents() == 1 && is_as_long(sam))
        {
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
        assert!(same_training(&of(Descent::Gsam { alpha: 0.0 }), &expected));
        assert!(same_training(
            &of(Descent::Wsam {
                gamma: 0.5,
                decoupled: false
            }),
            &expected
        ));
        assert!(same_training(
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

/// Each pass is at rho from w, along noise that is another each time and as long in each filter as the filter itself
/// has it; the update is the base optimizer's, with the gradients there.
#[test]
fn random_perturbation_is_rho_long_in_proportion_to_filters() {
    for device in devices() {
        let device = device.autodiff();
        let sam = SamConfig::new().with_rho(0.5).with_ascent(Ascent::Random);
        let mut model = linear(1, 200, 4, &device);
        // A filter is an output's weights: the second one is 3 times as long, the third nothing.
        let scale = Tensor::<2>::from_floats([[1.0, 3.0, 0.0, 1.0]], &device);
        model.weight = model.weight.map(|w| {
            (w.inner() * scale.clone().inner())
                .autodiff()
                .require_grad()
        });
        let filters = |tensor: Tensor<2>| read(tensor.square().sum_dim(0).sqrt());
        let expected = filters(model.weight.val().inner());
        let mut steps = sam.steps(&model);
        let (mut last, mut sum) = (Vec::new(), vec![0.0; 4]);
        for _ in 0..20 {
            let w = model.clone();
            let mut moved = Vec::new();
            let (updated, passes) = steps.optimize(&mut sgd(), LR, model, |model: &Linear| {
                let e = model.weight.val().inner() - w.weight.val().inner();
                let bias = |layer: &Linear| layer.bias.as_ref().unwrap().val().inner();
                let of_bias = bias(model) - bias(&w);
                moved = read(e.clone());
                for (sum, length) in sum.iter_mut().zip(filters(e)) {
                    *sum += length / 20.0;
                }
                let squares = moved
                    .iter()
                    .chain(&read(of_bias))
                    .map(|e| e * e)
                    .sum::<f32>();
                assert!((squares.sqrt() - 0.5).abs() < 1e-5, "{squares}");
                (
                    (),
                    (model.weight.val().sum() + bias_of(model).sum()).backward(),
                )
            });
            assert!(passes.at_w.is_none() && passes.climbed.is_some());
            let step = read(w.weight.val() - updated.weight.val());
            assert!(
                step.iter().all(|step| (step - 0.1).abs() < 1e-6),
                "{step:?}"
            );
            assert_ne!(moved, last, "another noise each step");
            last = moved;
            // From the same place again.
            model = w;
        }
        for (length, of_filter) in sum.iter().zip(&expected) {
            let (got, expected) = (length / sum[0], of_filter / expected[0]);
            assert!(
                (got - expected).abs() < 0.1 * (1.0 + expected),
                "{sum:?} for {expected}"
            );
        }
    }
}

fn bias_of(layer: &Linear) -> Tensor<1> {
    layer.bias.as_ref().unwrap().val()
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
