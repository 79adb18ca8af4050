//! The rule at one pass: MSAM whose rho sets itself, and what is limited without gradients at w.

use burn::module::Module;
use burn::optim::{GradientsAccumulator, ModuleOptimizer, MultiGradientsParams, SgdConfig};
use burn::tensor::Device;
use burn::train::logger::FileMetricLogger;
use burn::train::{Learner, RegressionOutput, TrainStep};
use burn_sam::{Ascent, Descent, Radius, SamConfig, SamSteps};
use burn_sam_tests::{
    Mlp, NormMlp, Points, TrainingModel, cpu_devices, devices, panic_message, read, same_values,
    train, values, warnings,
};

use crate::methods::near;

const LR: f64 = 0.05;

fn sgd() -> ModuleOptimizer {
    SgdConfig::new().init()
}

fn batches(device: &Device) -> Vec<Points> {
    (0..12).map(|seed| Points::new(seed, device)).collect()
}

/// Whether a step stays at w: those that are first are where the training starts, and of the others each 20th.
fn stays(step: usize) -> bool {
    step != 0 && (step < 20 || step.is_multiple_of(20))
}

/// A module's values, one after the other.
fn flat(model: &Mlp) -> Vec<f64> {
    values(model)
        .into_iter()
        .flat_map(|(_, values)| values)
        .collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// What rho and the update come to, in plain f64, from what the closure is given.
#[test]
fn it_is_its_equations() {
    for device in devices() {
        let device = device.autodiff();
        let mut model = Mlp::new(1, &device);
        let mut steps = SamConfig::auto().steps(&model);
        let (mut rho, mut means, mut first, mut m) = (0.05, [f64::NAN; 2], f64::NAN, f64::NAN);
        for (step, points) in batches(&device).iter().cycle().take(44).enumerate() {
            let w = model.clone();
            let mut at = None;
            let (updated, passes) = steps.minimize(&mut sgd(), LR, model, |model: &Mlp| {
                at = Some(model.clone());
                model.loss(points)
            });
            assert_eq!(passes.at_w.is_some(), stays(step));
            assert_eq!(passes.climbed.is_none(), stays(step));
            model = updated;

            let at = at.expect("a pass");
            let e: Vec<f64> = flat(&at).iter().zip(flat(&w)).map(|(a, w)| a - w).collect();
            let far = dot(&e, &e).sqrt();
            let expected = match step == 0 || stays(step) {
                true => 0.0,
                false => rho,
            };
            assert!(
                (far - expected).abs() < 1e-5 * (1.0 + rho),
                "{far} for {expected}"
            );
            let h = at.flat_gradients(points);
            let climbed = f64::from(read(at.loss(points))[0]);
            let at_w = climbed - 0.5 * dot(&h, &e);

            let length = dot(&h, &h).sqrt();
            let known = |value: f64, other: f64| if value.is_nan() { other } else { value };
            let share = (known(m, length) / length * 0.5).min(1.0);
            for ((after, before), h) in flat(&model).iter().zip(flat(&w)).zip(&h) {
                let expected = before - LR * share * h;
                assert!((after - expected).abs() < 1e-5, "{after} for {expected}");
            }
            m = known(m, length) * 0.9 + 0.1 * length.min(1.5 * known(m, length));

            if stays(step) {
                assert_eq!(f64::from(read(steps.rho())[0]), rho);
                continue;
            }
            first = known(first, at_w);
            means = [0, 1]
                .map(|i| known(means[i], [at_w, climbed][i]) * 0.9 + 0.1 * [at_w, climbed][i]);
            let room = means[0]
                .min((first - means[0]).max(first * 0.01))
                .max(first * 1e-6);
            let q = ((means[1] - means[0]) / (room * 0.45)).clamp(1e-3, 1e3);
            rho = (rho * (-0.1 * (q.ln() / 2.0).clamp(-1.0, 1.0)).exp()).clamp(1e-4, 20.0);
            let got = f64::from(read(steps.rho())[0]);
            // A rise that is lost in rounding is clamped; then the least of it shows.
            assert!((got - rho).abs() < 2e-2 * rho, "{got} for {rho}");
            rho = got;
        }
    }
}

/// In the Learner's log: half of the slope at w + e(w) times the way there, whether or not rho needs it; and the loss
/// there, less that, or at w, where a step has it.
#[test]
fn the_metrics_have_the_estimate() {
    const BATCHES: u64 = 23;
    for device in cpu_devices() {
        let device = device.autodiff();
        for sam in [SamConfig::auto(), SamConfig::msam().with_rho(0.1)] {
            let start = Mlp::new(1, &device);
            let (mut by_hand, mut steps) = (start.clone(), sam.steps(&start));
            let (mut expected, mut losses) = (Vec::new(), Vec::new());
            for batch in 0..BATCHES {
                let (points, w) = (Points::new(batch, &device), by_hand.clone());
                let mut at = None;
                let passes;
                (by_hand, passes) = steps.minimize(&mut sgd(), LR, by_hand, |model: &Mlp| {
                    at = Some(model.clone());
                    model.loss(&points)
                });
                let loss = passes.at_w.or(passes.climbed).expect("a pass");
                let loss = f64::from(read(loss)[0]);
                if sam == SamConfig::auto() && stays(batch as usize) {
                    losses.push(loss);
                    continue;
                }
                let at = at.expect("a pass");
                let e: Vec<f64> = flat(&at).iter().zip(flat(&w)).map(|(a, w)| a - w).collect();
                let rise = 0.5 * dot(&at.flat_gradients(&points), &e);
                expected.push(rise);
                losses.push(loss - rise);
            }
            let mut model = sam.init(start);
            let sharpness = model.sharpness(|output: &RegressionOutput| output.loss.clone());
            let loss_at_w = model.loss_at_w(|output: &RegressionOutput| output.loss.clone());
            let directory = tempfile::tempdir().unwrap();
            let learner = Learner::new(model, sgd(), LR);
            train(learner, (BATCHES, &device), directory.path(), |training| {
                training
                    .metrics((sharpness, loss_at_w))
                    .with_metric_logger(FileMetricLogger::new(directory.path()))
                    .num_epochs(1)
            });
            let logged = |name: &str| -> Vec<f64> {
                let log = directory.path().join(format!("train/epoch-1/{name}.log"));
                let log = std::fs::read_to_string(log).unwrap();
                let value = |line: &str| line.strip_suffix(",1")?.parse().ok();
                log.lines().filter_map(value).collect()
            };
            assert!(
                expected[1..].iter().any(|rise| rise.abs() > 1e-4),
                "{expected:?}"
            );
            for (name, expected) in [("Sharpness", expected), ("Loss_at_w", losses)] {
                let logged = logged(name);
                assert_eq!(logged.len(), expected.len(), "{name}");
                for (logged, expected) in logged.iter().zip(&expected) {
                    assert!((logged - expected).abs() < 1e-4, "{logged} for {expected}");
                }
            }
        }
    }
}

#[test]
fn msam_is_limited_by_what_its_gradients_usually_are() {
    for device in cpu_devices() {
        let device = device.autodiff();
        let limited = SamConfig::msam()
            .with_rho(0.1)
            .with_descent(Descent::Limited);
        let mut model = Mlp::new(1, &device);
        let mut steps = limited.steps(&model);
        for points in &batches(&device)[..6] {
            (model, _) = steps.minimize(&mut sgd(), LR, model, |model: &Mlp| model.loss(points));
        }
        // A batch out of all proportion moves the weights no farther than half of a usual one.
        let usual = dot(
            &model.flat_gradients(&batches(&device)[6]),
            &model.flat_gradients(&batches(&device)[6]),
        )
        .sqrt();
        let before = flat(&model);
        let (after, _) = steps.minimize(&mut sgd(), LR, model, |model: &Mlp| {
            model.loss(&batches(&device)[6]) * 1e6
        });
        let moved: Vec<f64> = flat(&after)
            .iter()
            .zip(&before)
            .map(|(a, b)| a - b)
            .collect();
        let moved = dot(&moved, &moved).sqrt();
        assert!(
            moved < 3.0 * LR * usual,
            "{moved} where a usual gradient is {usual} long"
        );
        assert!(moved > 0.0);
    }
}

#[test]
fn what_does_not_go_with_one_pass_is_refused() {
    let rule = Radius::Rule { rise: 0.4 };
    let message = panic_message(|| {
        SamConfig::new()
            .with_ascent(Ascent::Random)
            .with_radius(rule)
    });
    assert!(
        message.contains("ascent random and radius rule"),
        "{message}"
    );
    // And what does is not.
    let random = SamConfig::new()
        .with_ascent(Ascent::Random)
        .with_descent(Descent::Limited);
    let device = cpu_devices()[0].clone().autodiff();
    let (points, start) = (&batches(&device)[0], Mlp::new(1, &device));
    let (model, _) = random
        .steps(&start)
        .minimize(&mut sgd(), LR, start.clone(), |model: &Mlp| {
            model.loss(points)
        });
    assert!(!same_values(&model, &start));
}

/// Beyond the steps that stay at w: in a loop, in the Learner, from a record, with micro-batches and over devices.
#[test]
fn steps_that_climb_are_the_same_everywhere() {
    for device in cpu_devices() {
        let device = device.autodiff();
        let (sam, points) = (SamConfig::auto(), batches(&device));
        let mut model = NormMlp::new(1, &device);
        let mut steps = sam.steps(&model);
        let mut wrapped =
            sam.init(NormMlp::new(1, &device).load_record(model.clone().into_record()));
        let (mut optim, mut learner_optim) = (sgd(), sgd());
        let mut resumed = None;
        for step in 0..43 {
            let points = &points[step % points.len()];
            let before = model.statistics();
            (model, _) = steps.minimize(&mut optim, LR, model, |model: &NormMlp| {
                model.predict(points).loss
            });
            // Those of w alone.
            let climbs = step != 0 && !stays(step);
            assert_eq!(model.statistics() == before, climbs, "{step}");
            if let Some((model, steps)) = &mut resumed {
                let (next, _) = SamSteps::minimize(
                    steps,
                    &mut sgd(),
                    LR,
                    NormMlp::clone(model),
                    |model: &NormMlp| model.predict(points).loss,
                );
                *model = next;
            }
            if step == 22 {
                let mut steps_of_record = sam.steps(&NormMlp::new(5, &device));
                let record = steps.record(model.clone());
                let fresh = NormMlp::new(5, &device);
                let loaded = steps_of_record.try_load_record(fresh, record).unwrap();
                resumed = Some((loaded, steps_of_record));
            }
            let grads = TrainStep::step(&wrapped, points.clone()).grads;
            wrapped = TrainStep::optimize(wrapped, &mut learner_optim, LR.into(), grads);
        }
        let (resumed, resumed_steps) = resumed.unwrap();
        assert!(same_values(&resumed, &model));
        assert_eq!(read(resumed_steps.rho()), read(steps.rho()));
        near(&*wrapped, &model, 1e-5);
        assert!((read(wrapped.rho())[0] / read(steps.rho())[0] - 1.0).abs() < 1e-4);

        let (mut one, mut several) = (wrapped.clone(), wrapped);
        let (mut optim, mut optim_of_several) = (sgd(), sgd());
        for pair in points[..4].windows(2) {
            let mut accumulator = GradientsAccumulator::new();
            let mut grads = MultiGradientsParams::default();
            for points in pair {
                accumulator.accumulate(&one, TrainStep::step(&one, points.clone()).grads);
                let worker = several.clone().fork(&device);
                let step = TrainStep::step(&worker, points.clone());
                grads.grads.push((step.grads, device.clone().inner()));
            }
            one = TrainStep::optimize(one, &mut optim, LR.into(), accumulator.grads());
            several = TrainStep::optimize_multi(several, &mut optim_of_several, LR.into(), grads);
        }
        near(&*several, &*one, 1e-5);
        assert!((read(several.rho())[0] / read(one.rho())[0] - 1.0).abs() < 1e-4);
    }
}

/// Whose rho is another's: up to 20 where two passes have 3 at most.
#[test]
fn its_record_is_not_that_of_two_passes() {
    let device = cpu_devices()[0].clone().autodiff();
    let (points, start) = (batches(&device), Mlp::new(1, &device));
    let [one, two] = [SamConfig::auto(), SamConfig::auto_two_pass()];
    for (from, to) in [(&one, &two), (&two, &one)] {
        let (mut model, mut steps) = (start.clone(), from.steps(&start));
        for points in &points {
            (model, _) = steps.minimize(&mut sgd(), LR, model, |model: &Mlp| model.loss(points));
        }
        assert!((read(steps.rho())[0] - 0.05).abs() > 1e-4);
        let record = steps.record(model.clone());
        let mut others = to.steps(&start);
        let said = warnings(|| {
            let loaded = others.try_load_record(start.clone(), record).unwrap();
            assert!(same_values(&loaded, &model));
        });
        assert!((read(others.rho())[0] - 0.05).abs() < 1e-6);
        assert!(
            said.iter().any(|said| said.contains("starts anew")),
            "{said:?}"
        );
    }
}
