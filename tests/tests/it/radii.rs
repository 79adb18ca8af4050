//! How far to climb, what a climb that went too far comes to, and the limit of what is descended along.

use burn::module::{Module, Param, ParamGroup};
use burn::nn::Linear;
use burn::optim::{AdamConfig, GradientsAccumulator, MultiGradientsParams, SgdConfig};
use burn::tensor::{DType, Device, Tensor};
use burn::train::{ItemLazy, TrainOutput, TrainStep};
use burn_sam::{Ascent, Descent, Radius, SamConfig};
use burn_sam_tests::{
    Mlp, Points, auto_looksam, cpu_devices, devices, linear, panic_message, random_cases, read,
    same_training, values,
};
use proptest::prelude::*;

/// One weight, with a loss that has an edge: beyond 4.48, exp(exp(w)) is not finite in f32.
#[derive(Module, Debug)]
struct Edge {
    w: Param<Tensor<1>>,
}

impl Edge {
    fn new(device: &Device) -> Self {
        let w = Tensor::from_data([3.0], (device, DType::F32));
        Self {
            w: Param::from_tensor(w),
        }
    }

    fn loss(&self) -> Tensor<1> {
        self.w.val().exp().exp().sum()
    }
}

impl TrainStep for Edge {
    type Input = ();
    type Output = Loss;

    fn step(&self, (): ()) -> TrainOutput<Loss> {
        let loss = self.loss();
        TrainOutput::new(self, loss.backward(), Loss(loss.without_autodiff()))
    }
}

#[derive(Clone)]
struct Loss(Tensor<1>);

impl ItemLazy for Loss {
    fn sync(self) -> Result<Self, burn::backend::ExecutionError> {
        Ok(self)
    }
}

const LR: f64 = 1e-11;
/// What plain SGD makes of 3.
const PLAIN: f32 = 2.89385;

/// Those that have the gradient at w at hand, with a radius over the edge.
fn over_the_edge() -> Vec<SamConfig> {
    let sam = SamConfig::new().with_rho(2.0);
    vec![
        sam.clone(),
        sam.clone().with_descent(Descent::Limited),
        sam.clone().with_descent(Descent::Gsam { alpha: 0.2 }),
        sam.clone().with_descent(Descent::Wsam {
            gamma: 0.6,
            decoupled: false,
        }),
        sam.clone()
            .with_adaptive(true)
            .with_descent(Descent::Limited),
        SamConfig::looksam().with_rho(2.0),
        SamConfig::friendly().with_rho(2.0),
        SamConfig::auto_two_pass().with_rho(2.0),
        auto_looksam().with_rho(2.0),
        sam.clone().with_radius(Radius::Raised { steps: 1 }),
        sam.with_descent(Descent::Wsam {
            gamma: 0.6,
            decoupled: true,
        }),
    ]
}

#[test]
fn a_climb_over_an_edge_is_a_step_at_w() {
    for device in devices() {
        let device = device.autodiff();
        for sam in over_the_edge() {
            let near = |model: &Edge, how: &str| {
                let w = read(model.w.val())[0];
                assert!(
                    (w - PLAIN).abs() < 1e-5,
                    "{w} by {how} of {sam} on {device:?}"
                );
            };
            let mut steps = sam.steps(&Edge::new(&device));
            let mut optim = SgdConfig::new().init();
            let (model, losses) =
                steps.minimize(&mut optim, LR, Edge::new(&device), |model: &Edge| {
                    model.loss()
                });
            assert!(!read(losses.climbed.unwrap())[0].is_finite());
            near(&model, "minimize");

            let wrapped = sam
                .init(Edge::new(&device))
                .with_loss(|loss: &Loss| loss.0.clone());
            let grads = TrainStep::step(&wrapped, ()).grads;
            let model = TrainStep::optimize(wrapped, &mut optim, LR.into(), grads);
            near(&model, "the Learner");
        }
        let sam = SamConfig::new().with_rho(2.0);
        let (model, mut optim) = (Edge::new(&device), SgdConfig::new().init());
        let climbed = sam.first_step(model.clone(), model.loss().backward());
        let grads = climbed.loss().backward();
        let model = climbed.second_step(&mut optim, LR, grads);
        assert!((read(model.w.val())[0] - PLAIN).abs() < 1e-5);

        // Those who take the gradients themselves see what is not finite.
        let model = Edge::new(&device);
        for sam in [sam.clone(), sam.with_descent(Descent::Limited)] {
            let climbed = sam.first_step(model.clone(), model.loss().backward());
            let grads = climbed.second_gradients(climbed.loss().backward());
            assert!(!read(grads.get::<1>(model.w.id).unwrap())[0].is_finite());
            assert_eq!(read(climbed.step_back().w.val()), [3.0]);
        }
    }
}

#[test]
fn asam_has_no_gradient_at_w() {
    let device = cpu_devices()[0].clone().autodiff();
    let sam = SamConfig::asam().with_rho(2.0);
    {
        let mut optim = SgdConfig::new().init();
        let (model, _) = sam.optimize(&mut optim, LR, Edge::new(&device), |model: &Edge| {
            ((), model.loss().backward())
        });
        let w = read(model.w.val())[0];
        assert!(w.is_nan() || w < 0.0, "{w} of {sam}");
    }
}

proptest! {
    #![proptest_config(random_cases(24))]

    /// What is read off w + e(w) is g, for every radius and in every group.
    #[test]
    fn the_gradient_at_w_is_read_off_the_climbed_weights(
        seed in 0..100u64,
        rho in 0.05..2.0f64,
        of_output in prop_oneof![Just(0.0), 0.05..2.0f64],
    ) {
        for device in devices() {
            let device = device.autodiff();
            let (model, points) = (Mlp::new(seed, &device), Points::new(seed, &device));
            let group = ParamGroup::from_predicate("output");
            let sam = SamConfig::new().with_rho(rho).with_group(group, of_output);
            let mut optim = SgdConfig::new().init();
            let climbed = sam.first_step(model.clone(), model.loss(&points).backward());
            let grads = (climbed.loss(&points) * f32::INFINITY).backward();
            let rescued = climbed.second_step(&mut optim, 0.1, grads);
            let plain = optim.step(0.1, model.clone(), model.gradients(&points));
            for ((path, rescued), (_, plain)) in values(&rescued).iter().zip(values(&plain)) {
                for (rescued, plain) in rescued.iter().zip(plain) {
                    prop_assert!((rescued - plain).abs() < 1e-5, "{path}: {rescued} for {plain}");
                }
            }
        }
    }

    /// h min(1, |g| / |h|), whatever is longer; and h to the last bit where it is short enough.
    #[test]
    fn the_descent_is_no_longer_than_the_gradient_at_w(seed in 0..1000u64, rho in 0.01..3.0f64) {
        for device in devices() {
            let device = device.autodiff();
            let (model, points) = (Mlp::new(seed, &device), Points::new(seed, &device));
            let gradients = |sam: &SamConfig| {
                let climbed = sam.first_step(model.clone(), model.loss(&points).backward());
                let mut grads = climbed.second_gradients(climbed.loss(&points).backward());
                let mut all = Vec::new();
                for layer in [&model.hidden, &model.output] {
                    all.extend(read(grads.remove::<2>(layer.weight.id).unwrap()));
                    all.extend(read(grads.remove::<1>(layer.bias.as_ref().unwrap().id).unwrap()));
                }
                drop(climbed.step_back());
                all
            };
            let norm = |values: &[f32]| {
                values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt()
            };
            let sam = SamConfig::new().with_rho(rho);
            let (h, g) = (gradients(&sam), gradients(&SamConfig::new().with_rho(0.0)));
            for limited in [
                sam.clone().with_descent(Descent::Limited),
                // The same, of gradients that are kept.
                sam.with_descent(Descent::Limited).with_adaptive(true).with_eta(1e6).with_rho(rho / 1e6),
            ] {
                let kept = limited.adaptive();
                let found = gradients(&limited);
                let share = (norm(&g) / norm(&h)).min(1.0);
                for (found, h) in found.iter().zip(&h) {
                    let expected = f64::from(*h) * share;
                    let bound = if kept { 1e-3 } else { 2e-6 };
                    prop_assert!((f64::from(*found) - expected).abs() <= bound * (1.0 + expected.abs()));
                    prop_assert!(kept || share < 1.0 || found == h);
                }
            }
        }
    }
}

fn batches(device: &Device) -> Vec<Points> {
    (0..12).map(|seed| Points::new(seed, device)).collect()
}

/// Steps whose radius and learning rate are given are those of plain SAM with that radius.
#[test]
fn radii_are_raised_and_follow_the_learning_rate() {
    let lrs = [0.1, 0.02, 0.08, 0.0, 0.2, 0.05];
    let raised: fn(usize) -> f64 = |step| 0.4 * ((step + 1) as f64 / 4.0).min(1.0);
    let following: fn(usize) -> f64 = |step| match step {
        0 => 0.1,
        // 0.1 to 0.4 as the rate goes from 0.02 to 0.1.
        _ => {
            0.1 + 0.3
                * ((f64::from([0.1f32, 0.02, 0.08, 0.0, 0.2][step - 1]) - 0.02) / 0.08)
                    .clamp(0.0, 1.0)
        }
    };
    let radius = Radius::LearningRate {
        rho_min: 0.1,
        lr_min: 0.02,
        lr_max: 0.1,
    };
    for device in devices() {
        let device = device.autodiff();
        for (radius, rho_of) in [(Radius::Raised { steps: 4 }, raised), (radius, following)] {
            let sam = SamConfig::new().with_rho(0.4).with_radius(radius);
            let mut model = Mlp::new(1, &device);
            let (mut plain, mut wrapped) = (model.clone(), sam.init(model.clone()));
            let mut steps = sam.steps(&model);
            let [mut optim, mut plain_optim, mut learner_optim] =
                [(); 3].map(|()| SgdConfig::new().init());
            for (step, (points, lr)) in batches(&device).iter().zip(lrs).enumerate() {
                let rho = rho_of(step);
                assert!(
                    (f64::from(read(steps.rho())[0]) - rho).abs() < 1e-6,
                    "{radius:?} at {step}"
                );
                (model, _) =
                    steps.minimize(&mut optim, lr, model, |model: &Mlp| model.loss(points));
                let constant = SamConfig::new().with_rho(rho);
                (plain, _) = constant.optimize(&mut plain_optim, lr, plain, |model: &Mlp| {
                    ((), model.loss(points).backward())
                });
                let grads = TrainStep::step(&wrapped, points.clone()).grads;
                wrapped = TrainStep::optimize(wrapped, &mut learner_optim, lr.into(), grads);
            }
            assert!(same_training(&*wrapped, &model));
            for ((path, raised), (_, plain)) in values(&model).iter().zip(values(&plain)) {
                for (raised, plain) in raised.iter().zip(plain) {
                    assert!((raised - plain).abs() < 1e-5, "{path} with {radius:?}");
                }
            }
        }
    }
}

/// The rule as its equations have it, on the host.
#[derive(Clone)]
struct Rule {
    rise: f64,
    /// Decay and factor.
    pace: [f64; 2],
    rho: f64,
    state: Option<[f64; 3]>,
    /// The mean of |h| / |g|.
    ratio: Option<f64>,
}

fn length(vector: &[f64]) -> f64 {
    vector.iter().map(|value| value * value).sum::<f64>().sqrt()
}

impl Rule {
    fn next(&mut self, at_w: f64, climbed: f64, ratio: f64) {
        if !at_w.is_finite() {
            return;
        }
        let [decay, speed] = self.pace;
        let first = self.state.map_or(at_w, |state| state[2]);
        let most = 10.0 * first.max(at_w);
        let climbed = if climbed.is_finite() {
            climbed.min(most)
        } else {
            most
        };
        let [l, rest, _] = self.state.unwrap_or([at_w, climbed, first]);
        let mean = |old: f64, new: f64| decay * old + (1.0 - decay) * new;
        let (l, rest) = (mean(l, at_w), mean(rest, climbed));
        let h = l.min((first - l).max(0.01 * first)).max(1e-6 * first);
        // An h that is not finite is as long as any.
        let ratio = if ratio.is_finite() {
            ratio.min(30.0)
        } else {
            30.0
        };
        let ratio = mean(self.ratio.unwrap_or(ratio), ratio);
        self.ratio = Some(ratio);
        let q = ((rest - l) / (self.rise * h))
            .max(ratio / 3.0)
            .clamp(1e-3, 1e3);
        self.rho = (self.rho * (-speed * (0.5 * q.ln()).clamp(-1.0, 1.0)).exp()).clamp(1e-4, 3.0);
        self.state = Some([l, rest, first]);
    }
}

#[test]
fn the_rule_is_its_equations() {
    for device in cpu_devices() {
        let device = device.autodiff();
        for (sam, pace, every) in [
            (SamConfig::auto_two_pass(), [0.9, 0.1], 1),
            (auto_looksam().with_every(2), [0.7, 0.3], 2),
        ] {
            let Radius::Rule { rise } = sam.radius() else {
                panic!("{sam}")
            };
            let mut rule = Rule {
                rise,
                pace,
                rho: 0.05,
                state: None,
                ratio: None,
            };
            let mut model = Mlp::new(1, &device);
            let mut steps = sam.steps(&model);
            let mut optim = SgdConfig::new().init();
            let mut radii = Vec::new();
            for (step, points) in batches(&device).iter().enumerate() {
                // A loss that is not finite, at w and at w + e(w).
                let bad = [step == 4, step == 4 || step == 6];
                let mut passes = bad.into_iter();
                let mut lengths = Vec::new();
                let (updated, losses) =
                    steps.minimize(&mut optim, 0.05, model.clone(), |model: &Mlp| {
                        let is_bad = passes.next().unwrap_or(false);
                        let of = if is_bad { f64::INFINITY } else { 1.0 };
                        lengths.push(of * length(&model.flat_gradients(points)));
                        model.loss(points) * of
                    });
                if step != 4 {
                    model = updated;
                }
                assert_eq!(losses.climbed.is_some(), step % every == 0);
                if let (Some(at_w), Some(climbed)) = (losses.at_w, losses.climbed) {
                    let [at_w, climbed] = [at_w, climbed].map(|loss| f64::from(read(loss)[0]));
                    rule.next(at_w, climbed, lengths[1] / lengths[0]);
                }
                let rho = f64::from(read(steps.rho())[0]);
                assert!(
                    (rho / rule.rho - 1.0).abs() < 1e-4,
                    "{rho} for {} at {step}",
                    rule.rho
                );
                radii.push(rho);
            }
            let moves = radii.windows(2).filter(|pair| pair[0] != pair[1]);
            assert!(moves.count() > 3, "{radii:?}");
        }
    }
}

/// A rise at which the first steps' q is not at an end of its range.
const IN_RANGE: f64 = 8.0;

/// Three updates of two, one and three micro-batches or devices, each with the mean of its losses.
#[test]
fn micro_batches_and_devices_give_the_rule_the_mean_of_their_losses() {
    for device in devices() {
        let device = device.autodiff();
        let sam = SamConfig::auto_two_pass().with_radius(Radius::Rule { rise: IN_RANGE });
        let mut rule = Rule {
            rise: IN_RANGE,
            pace: [0.9, 0.1],
            rho: 0.05,
            state: None,
            ratio: None,
        };
        let mut wrapped = sam.init(Mlp::new(1, &device));
        let mut several = wrapped.clone();
        let [mut optim, mut optim_of_several] = [(); 2].map(|()| SgdConfig::new().init());
        let mut batches = batches(&device).into_iter();
        for count in [2, 1, 3] {
            let batches: Vec<Points> = batches.by_ref().take(count).collect();
            let seen: Vec<[f64; 3]> = (batches.iter())
                .map(|points| {
                    let climbing = SamConfig::new().with_rho(rule.rho);
                    let model = (*wrapped).clone();
                    let at_w = f64::from(read(model.loss(points))[0]);
                    let climbed = climbing.first_step(model.clone(), model.loss(points).backward());
                    let loss = f64::from(read(climbed.loss(points))[0]);
                    let h = climbed.flat_gradients(points);
                    let g = climbed.step_back().flat_gradients(points);
                    [at_w, loss, length(&h) / length(&g)]
                })
                .collect();
            let mean =
                |index: usize| seen.iter().map(|seen| seen[index]).sum::<f64>() / count as f64;
            rule.next(mean(0), mean(1), mean(2));

            let mut accumulator = GradientsAccumulator::new();
            let mut of_devices = MultiGradientsParams::default();
            for points in &batches {
                accumulator.accumulate(&wrapped, TrainStep::step(&wrapped, points.clone()).grads);
                let step = TrainStep::step(&several, points.clone());
                of_devices.grads.push((step.grads, device.clone().inner()));
            }
            wrapped = TrainStep::optimize(wrapped, &mut optim, 0.01.into(), accumulator.grads());
            several =
                TrainStep::optimize_multi(several, &mut optim_of_several, 0.01.into(), of_devices);
            for (how, rho) in [("accumulation", wrapped.rho()), ("devices", several.rho())] {
                let rho = f64::from(read(rho)[0]);
                assert!(
                    (rho / rule.rho - 1.0).abs() < 1e-3,
                    "{rho} for {} with {how}",
                    rule.rho
                );
            }
        }
        let ends = [0.3f64, -0.3].map(|exponent| 0.05 * exponent.exp());
        assert!(
            ends.iter().all(|end| (rule.rho / end - 1.0).abs() > 0.01),
            "{}",
            rule.rho
        );
    }
}

/// A batch whose loss is far above the rest, at w as at w + e(w), does not drive rho to its end; and a first loss of
/// 0 leaves it where it is.
#[test]
fn the_rule_survives_an_odd_batch() {
    for device in cpu_devices() {
        let device = device.autodiff();
        let points = Points::new(0, &device);
        let train = |scale: fn(usize) -> f32| {
            let model = Mlp::new(1, &device);
            let mut steps = SamConfig::auto_two_pass().steps(&model);
            let mut optim = SgdConfig::new().init();
            (0..40)
                .map(|step| {
                    let loss = |model: &Mlp| model.loss(&points) * scale(step);
                    steps.minimize(&mut optim, 0.0, model.clone(), loss);
                    read(steps.rho())[0]
                })
                .collect::<Vec<_>>()
        };
        let even = train(|_| 1.0);
        let odd = train(|step| if step == 5 { 1000.0 } else { 1.0 });
        assert!(odd[39] <= even[39], "{odd:?} for {even:?}");
        assert!(train(|_| 0.0).iter().all(|rho| *rho == 0.05));
        assert!(train(|_| -1.0).iter().all(|rho| *rho == 0.05));
    }
}

/// A parameter that had no gradient at w is no way out for what is not finite.
#[test]
fn over_an_edge_a_parameter_without_a_gradient_at_w_stays() {
    for device in devices() {
        let device = device.autodiff();
        let (model, points) = (Mlp::new(1, &device), Points::new(0, &device));
        let output = ParamGroup::from_predicate("output");
        for sam in [
            SamConfig::new().with_rho(0.5),
            SamConfig::new().with_rho(0.5).with_group(output, 0.0),
            SamConfig::asam().with_descent(Descent::Limited),
        ] {
            let mut grads = model.gradients(&points);
            grads.remove::<2>(model.output.weight.id);
            let climbed = sam.climb(model.clone(), grads);
            let grads = (climbed.loss(&points) * f32::INFINITY).backward();
            let updated = climbed.second_step(&mut SgdConfig::new().init(), 0.1, grads);
            let weight = |model: &Mlp| read(model.output.weight.val());
            assert_eq!(weight(&updated), weight(&model), "{sam}");
            assert_ne!(
                read(updated.hidden.weight.val()),
                read(model.hidden.weight.val())
            );
            let finite = |(_, values): (String, Vec<f64>)| values.iter().all(|v| v.is_finite());
            assert!(values(&updated).into_iter().all(finite), "{sam}");
        }
    }
}

#[test]
fn the_rule_wants_to_know_the_loss() {
    let device = cpu_devices()[0].clone().autodiff();
    let wrapped = SamConfig::auto_two_pass().init(Edge::new(&device));
    let message = panic_message(|| TrainStep::step(&wrapped, ()));
    assert!(
        message.contains("SamModel::with_loss") && message.contains("Loss"),
        "{message}"
    );
    let model = Edge::new(&device);
    let mut steps = SamConfig::auto_two_pass().steps(&model);
    let message = panic_message(|| {
        steps.optimize(&mut SgdConfig::new().init(), LR, model, |model: &Edge| {
            ((), model.loss().backward())
        })
    });
    assert!(message.contains("SamSteps::minimize"), "{message}");
}

#[test]
fn what_makes_no_sense_is_refused_with_its_reason() {
    let auto = SamConfig::auto_two_pass;
    type Refused = (fn() -> SamConfig, &'static str);
    let refused: [Refused; 8] = [
        (
            || SamConfig::auto_two_pass().with_ascent(Ascent::Random),
            "random perturbation takes none at w",
        ),
        (|| SamConfig::auto_two_pass().with_start(3), "start"),
        (|| SamConfig::auto_two_pass().with_rho(0.0), "rho is 0"),
        (
            || SamConfig::new().with_radius(Radius::Rule { rise: 0.0 }),
            "radius.rule.rise is 0",
        ),
        (
            || SamConfig::new().with_radius(Radius::Rule { rise: f64::NAN }),
            "rise is NaN",
        ),
        (
            || SamConfig::new().with_radius(Radius::Raised { steps: 0 }),
            "steps is 0",
        ),
        (
            || {
                let (rho_min, lr_min, lr_max) = (0.01, 0.1, 0.1);
                SamConfig::new().with_radius(Radius::LearningRate {
                    rho_min,
                    lr_min,
                    lr_max,
                })
            },
            "lr_min is 0.1, but must be below lr_max",
        ),
        (
            || {
                let (rho_min, lr_min, lr_max) = (0.1, 0.0, 0.1);
                SamConfig::new().with_radius(Radius::LearningRate {
                    rho_min,
                    lr_min,
                    lr_max,
                })
            },
            "rho_min is 0.1, but must be at most rho",
        ),
    ];
    for (config, reason) in refused {
        let message = panic_message(config);
        assert!(message.contains(reason), "{message} has not {reason}");
    }
    // And from files, which read like the method.
    let load = |file: &str| -> Result<SamConfig, String> {
        burn::config::Config::load_binary(file.as_bytes())
            .map_err(|error: burn::config::ConfigError| error.to_string())
    };
    let file = r#"{"radius": {"rule": {"rise": 0.7}}, "descent": "limited"}"#;
    assert_eq!(load(file).unwrap(), auto());
    let error = load(r#"{"radius": {"rule": {"rise": -1.0}}}"#).unwrap_err();
    assert!(error.contains("radius.rule.rise is -1"), "{error}");
    let error = load(r#"{"radius": {"rule": {"rise": 0.7}}, "start": 4}"#).unwrap_err();
    assert!(error.contains("radius rule and start"), "{error}");
}

/// A regression without noise, in full batches: the rise there is that of a valley, not of noise.
#[test]
fn the_rule_does_not_hold_up_a_loss_that_can_go_to_nothing() {
    const STEPS: usize = 6000;
    let device = Device::flex().autodiff();
    let x: Vec<f32> = (0..64).map(|i| i as f32 / 32.0 - 1.0).collect();
    let x = Tensor::<1>::from_floats(x.as_slice(), &device).unsqueeze_dim::<2>(1);
    let y = (x.clone() * 3.0).sin();
    let fit =
        |(hidden, output): &(Linear, Linear)| output.forward(hidden.forward(x.clone()).tanh());
    let loss = |model: &(Linear, Linear)| (fit(model) - y.clone()).square().mean();
    let configs = [
        // SAM with a rho of 0 is Adam alone.
        SamConfig::new().with_rho(0.0),
        SamConfig::auto(),
        SamConfig::auto_two_pass(),
    ];
    // Adam's losses have spikes, now here and now there: of several trainings.
    let [adam, one_pass, two_passes] = configs.map(|sam| {
        let mut last = 0.0;
        for seed in [1, 11, 21] {
            let mut model = (
                linear(seed, 1, 32, &device),
                linear(seed + 1, 32, 1, &device),
            );
            let (mut steps, mut optim) = (sam.steps(&model), AdamConfig::new().init());
            for step in 0..STEPS {
                (model, _) = steps.minimize(&mut optim, 0.01, model, loss);
                if step + 100 >= STEPS {
                    last += f64::from(read(loss(&model))[0]) / 300.0;
                }
            }
        }
        last
    });
    // It was 2.1 and 1.8 when this was written, and 5,000 before the rule had its bound.
    for held in [one_pass, two_passes] {
        assert!(held < 4.0 * adam, "{held} where Adam alone has {adam}");
    }
}
