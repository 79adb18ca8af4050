//! `SamModel` in Burn's Learner: single device, several, accumulation, checkpoints, early stopping.

use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::module::{Module, ModuleMapper, Param, ParamGroup};
use burn::optim::momentum::MomentumConfig;
use burn::optim::{AdamConfig, GradientsParams, ModuleOptimizer, SgdConfig};
use burn::store::ModuleRecord;
use burn::tensor::{Device, Tensor};
use burn::train::checkpoint::KeepLastNCheckpoints;
use burn::train::logger::FileMetricLogger;
use burn::train::metric::LossMetric;
use burn::train::metric::store::{Aggregate, Direction, Split};
use burn::train::{
    ExecutionStrategy, InferenceStep, Learner, LearnerSummary, MetricEarlyStoppingStrategy,
    MetricSummary, MultiDeviceOptim, RegressionOutput, StoppingCondition, SupervisedTraining,
    TrainOutput, TrainStep, TrainingStrategy,
};
use burn_sam::{AscentPart, Flatness, Radius, SamConfig, SamModel};
use burn_sam_tests::{
    FEATURES, Mlp, NormMlp, Points, TrainingModel, cpu_devices, devices, panic_message, read,
    same_training, same_values, train, values,
};

const LR: f64 = 0.1;
const BATCHES: u64 = 4;

fn sam() -> SamConfig {
    SamConfig::new().with_rho(0.5)
}

fn sgd() -> ModuleOptimizer {
    SgdConfig::new()
        .with_momentum(Some(MomentumConfig::new()))
        .init()
}

fn temporary() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// The same by hand.
fn steps<M: TrainingModel>(mut model: M, epochs: usize, device: &Device) -> M {
    let mut optim = sgd();
    for seed in (0..epochs).flat_map(|_| 0..BATCHES) {
        let points = Points::new(seed, device);
        let grads = model.predict(&points).loss.backward();
        let climbed = sam().first_step(model, grads);
        let grads = climbed.predict(&points).loss.backward();
        model = climbed.second_step(&mut optim, LR, grads);
    }
    model
}

#[test]
fn the_learner_takes_the_steps_of_a_loop() {
    for device in devices() {
        let device = device.autodiff();
        let model = Mlp::new(1, &device);
        let expected = steps(model.clone(), 3, &device);
        let learner = Learner::new(sam().init(model), sgd(), LR);
        let (result, losses) = train(
            learner,
            (BATCHES, &device),
            temporary().path(),
            |training| training.num_epochs(3),
        );
        assert!(
            same_training(&result.model.into_inner(), &expected),
            "{device:?}"
        );
        let points = [Points::new(0, &device), Points::new(1, &device)];
        let expected = points.map(|points| read(expected.loss(&points))[0]);
        assert_eq!(losses.len(), 3);
        assert!((losses[2] as f32 - (expected[0] + expected[1]) / 2.0).abs() < 1e-5);
    }
}

#[test]
fn metrics_see_the_first_pass() {
    for device in devices() {
        let device = device.autodiff();
        let (model, points) = (Mlp::new(1, &device), Points::new(0, &device));
        let item = TrainStep::step(&sam().init(model.clone()), points.clone()).item;
        assert_eq!(read(item.loss), read(model.loss(&points)));
        assert_eq!(read(item.output), read(model.predict(&points).output));
    }
}

#[test]
fn a_part_of_the_batch_is_enough_for_the_ascent() {
    for device in devices() {
        let device = device.autodiff();
        let (model, points) = (NormMlp::new(1, &device), Points::new(0, &device));
        let config = sam().with_ascent_fraction(0.25);

        let plain = NormMlp::new(1, &device);
        let part = Points::part(&points, config.ascent_part());
        assert_eq!(part.x.dims()[0], 2);
        let climbed = config.climb(plain.clone(), plain.gradients(&part));
        let expected_item = climbed.predict(&points);
        let optim = || SgdConfig::new().init();
        let expected = optim().step(LR, plain, climbed.gradients(&points));

        let step = TrainStep::step(
            &config.init_on_part(model.clone(), Points::part),
            points.clone(),
        );
        // The metrics see the second pass, and so do the running statistics, of the whole batch: those
        // of the inputs do not depend on the weights.
        assert_eq!(read(step.item.loss), read(expected_item.loss));
        let whole = NormMlp::new(1, &device);
        whole.predict(&points);
        let of_inputs = |model: &NormMlp| model.statistics()[..2 * FEATURES].to_vec();
        assert_eq!(of_inputs(&model), of_inputs(&whole));
        let trained = optim().step(LR, model, step.grads);
        let difference = |a: &NormMlp, b: &NormMlp| {
            let (a, b) = (read(a.hidden.weight.val()), read(b.hidden.weight.val()));
            let pairs = a.into_iter().zip(b);
            pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
        };
        assert!(difference(&trained, &expected) < 1e-6, "{device:?}");
        let step = TrainStep::step(&sam().init(NormMlp::new(1, &device)), points);
        let with_whole = optim().step(LR, NormMlp::new(1, &device), step.grads);
        assert!(difference(&trained, &with_whole) > 1e-4);
    }
}

#[test]
fn the_whole_batch_is_no_part() {
    for device in devices() {
        let device = device.autodiff();
        let steps = |wrapped: SamModel<NormMlp>| {
            let learner = Learner::new(wrapped, sgd(), LR);
            let directory = temporary();
            train(learner, (BATCHES, &device), directory.path(), |training| {
                training.num_epochs(2)
            })
        };
        let never = |_: &Points, _: AscentPart| -> Points { panic!("the batch is whole") };
        let (plain, losses) = steps(sam().init(NormMlp::new(1, &device)));
        let config = sam().with_ascent_fraction(1.0);
        let (whole, losses_of_whole) = steps(config.init_on_part(NormMlp::new(1, &device), never));
        assert!(same_training(&whole.model, &plain.model), "{device:?}");
        assert_eq!(losses, losses_of_whole);
    }
}

#[test]
fn a_fraction_without_a_way_to_take_it_is_refused() {
    let device = cpu_devices()[0].clone().autodiff();
    let config = sam().with_ascent_fraction(0.5);
    let message = panic_message(|| config.init(Mlp::new(1, &device)));
    assert!(message.contains("SamConfig::init_on_part"), "{message}");
    let message = panic_message(|| {
        let points = Points::new(0, &device);
        let model = Mlp::new(1, &device);
        config.optimize(&mut sgd(), LR, model, |model: &Mlp| {
            ((), model.loss(&points).backward())
        })
    });
    assert!(message.contains("SamConfig::ascent_part"), "{message}");
}

#[test]
fn sharpness_is_logged_beside_the_loss() {
    for device in devices() {
        let device = device.autodiff();
        let model = Mlp::new(1, &device);
        let flatness = |model: &Mlp, batch: u64| {
            let batches = [Points::new(batch, &device)];
            let flatness = Flatness::new(model, &batches, Mlp::loss).unwrap();
            flatness.sharpness(&sam()).unwrap()
        };
        let expected: Vec<f64> = (0..BATCHES)
            .scan(model.clone(), |model, batch| {
                let sharpness = flatness(model, batch);
                let step = TrainStep::step(&sam().init(model.clone()), Points::new(batch, &device));
                *model = (SgdConfig::new().init()).step(LR, model.clone(), step.grads);
                Some(sharpness)
            })
            .collect();

        let mut model = sam().init(model);
        let sharpness = model.sharpness(|output: &RegressionOutput| output.loss.clone());
        let directory = temporary();
        let learner = Learner::new(model, SgdConfig::new().init(), LR);
        train(learner, (BATCHES, &device), directory.path(), |training| {
            training
                // Burn's short way, which registers it for validation too.
                .metrics((sharpness,))
                .with_metric_logger(FileMetricLogger::new(directory.path()))
                .num_epochs(2)
        });
        let log = |split: &str, epoch: usize| {
            let file = directory
                .path()
                .join(format!("{split}/epoch-{epoch}/Sharpness.log"));
            std::fs::read_to_string(file).unwrap_or_default()
        };
        let logged: Vec<f64> = (log("train", 1).lines())
            .filter_map(|line| line.strip_suffix(",1")?.parse().ok())
            .collect();
        assert_eq!(logged.len(), expected.len(), "{}", log("train", 1));
        for (logged, expected) in logged.iter().zip(&expected) {
            assert!((logged - expected).abs() < 1e-5, "{logged} for {expected}");
        }
        assert!(log("train", 2).lines().count() >= expected.len());
        assert!(log("train", 1).lines().all(|line| !line.contains("NaN")));
        // In validation nothing climbs: neither the log nor the summary has a row.
        for epoch in [1, 2] {
            assert_eq!(log("valid", epoch), "");
        }
        let summary = LearnerSummary::new(directory.path(), &["Loss", "Sharpness"]).unwrap();
        let names = |metrics: &[MetricSummary]| -> Vec<String> {
            metrics.iter().map(|metric| metric.name.clone()).collect()
        };
        assert_eq!(names(&summary.metrics.train), ["Loss", "Sharpness"]);
        assert_eq!(names(&summary.metrics.valid), ["Loss"]);
        let mean = expected.iter().sum::<f64>() / expected.len() as f64;
        let shown = summary.metrics.train[1].entries[0].value;
        assert!((shown - mean).abs() < 1e-5, "{shown} for {mean}");
    }
}

/// Each step's radius, in a training that names no loss: the Learner's own outputs have one.
#[test]
fn rho_is_logged_beside_the_loss() {
    for device in devices() {
        let device = device.autodiff();
        let model = Mlp::new(1, &device);
        let (mut by_hand, mut optim) = (model.clone(), SgdConfig::new().init());
        let mut steps = SamConfig::auto_two_pass().steps(&model);
        let mut expected = Vec::new();
        for batch in 0..BATCHES {
            expected.push(f64::from(read(steps.rho())[0]));
            let points = Points::new(batch, &device);
            (by_hand, _) =
                steps.minimize(&mut optim, LR, by_hand, |model: &Mlp| model.loss(&points));
        }

        let mut model = SamConfig::auto_two_pass().init(model);
        let rho = model.rho_metric();
        let directory = temporary();
        let learner = Learner::new(model, SgdConfig::new().init(), LR);
        train(learner, (BATCHES, &device), directory.path(), |training| {
            training
                .metric_train_numeric(rho)
                .with_metric_logger(FileMetricLogger::new(directory.path()))
                .num_epochs(1)
        });
        let log = std::fs::read_to_string(directory.path().join("train/epoch-1/Rho.log")).unwrap();
        let logged: Vec<f64> = (log.lines())
            .filter_map(|line| line.strip_suffix(",1")?.parse().ok())
            .collect();
        assert_eq!(logged.len(), expected.len(), "{log}");
        for (logged, expected) in logged.iter().zip(&expected) {
            assert!((logged - expected).abs() < 1e-5, "{logged} for {expected}");
        }
        assert!(logged[0] != logged[1]);
    }
}

/// With an ascent on part of the batch, the rule compares the part's loss at w with the batch's at w + e(w).
#[test]
fn a_radius_sets_itself_on_part_of_the_batch() {
    let device = cpu_devices()[0].clone().autodiff();
    let rise = 8.0;
    let model = Mlp::new(1, &device);
    let q = |points: &Points| {
        let part = Points {
            x: points.x.clone().narrow(0, 0, 2),
            y: points.y.clone().narrow(0, 0, 2),
        };
        let at_w = f64::from(read(model.loss(&part))[0]);
        let ascended = SamConfig::new().climb(model.clone(), model.gradients(&part));
        let climbed = f64::from(read(ascended.loss(points))[0]);
        drop(ascended.step_back());
        (climbed - at_w) / (rise * 0.01 * at_w)
    };
    // A batch with which the rule is at no end of its range.
    let (points, q) = (0..50)
        .map(|seed| Points::new(seed, &device))
        .map(|points| (points.clone(), q(&points)))
        .find(|(_, q)| (0.14..7.0).contains(q))
        .expect("one of fifty");
    let sam = SamConfig::auto_two_pass()
        .with_radius(Radius::Rule { rise })
        .with_ascent_fraction(0.25);
    let wrapped = sam.init_on_part(model.clone(), |points: &Points, part| Points {
        x: part.of(&points.x),
        y: part.of(&points.y),
    });
    let grads = TrainStep::step(&wrapped, points.clone()).grads;
    let trained = TrainStep::optimize(wrapped, &mut SgdConfig::new().init(), LR.into(), grads);

    let expected = 0.05 * (-0.05 * q.ln()).exp();
    let rho = f64::from(read(trained.rho())[0]);
    assert!((rho - expected).abs() < 1e-5, "{rho} for {expected}");

    // And so in a loop of one's own.
    let mut steps = sam.steps(&model);
    let mut optim = SgdConfig::new().init();
    steps.minimize_on_part(&mut optim, LR, model, |model: &Mlp, part| {
        let (x, y) = (part.of(&points.x), part.of(&points.y));
        model.loss(&Points { x, y })
    });
    let rho = f64::from(read(steps.rho())[0]);
    assert!((rho - expected).abs() < 1e-5, "{rho} for {expected}");
}

#[test]
fn running_statistics_are_those_of_plain_training() {
    for device in devices() {
        let device = device.autodiff();
        let model = NormMlp::new(1, &device);
        let statistics = |model: NormMlp| model.statistics()[..6].to_vec();

        let learner = Learner::new(NormMlp::new(1, &device), sgd(), LR);
        let (plain, _) = train(
            learner,
            (BATCHES, &device),
            temporary().path(),
            |training| training.num_epochs(2),
        );
        let learner = Learner::new(sam().init(model), sgd(), LR);
        let (with_sam, _) = train(
            learner,
            (BATCHES, &device),
            temporary().path(),
            |training| training.num_epochs(2),
        );
        let (with_sam, plain) = (
            statistics(with_sam.model.into_inner()),
            statistics(plain.model),
        );
        for (with_sam, plain) in with_sam.iter().zip(&plain) {
            // A GPU's products need not be the same each time.
            assert!(
                (with_sam - plain).abs() <= 1e-6 * (1.0 + plain.abs()),
                "{with_sam} for {plain}"
            );
        }
    }
}

#[test]
fn an_interrupted_run_resumes_to_the_same_weights() {
    for device in cpu_devices() {
        let device = device.autodiff();
        let model = NormMlp::new(1, &device);
        // A model of its own each time: clones share their running statistics.
        let learner = |seed| {
            let mut fresh = NormMlp::new(seed, &device);
            (fresh.hidden, fresh.output) = (model.hidden.clone(), model.output.clone());
            (fresh.norm.gamma, fresh.norm.beta) =
                (model.norm.gamma.clone(), model.norm.beta.clone());
            (fresh.inputs.gamma, fresh.inputs.beta) =
                (model.inputs.gamma.clone(), model.inputs.beta.clone());
            Learner::new(sam().init(fresh), AdamConfig::new().init(), LR)
        };
        let on = (BATCHES, &device);
        let (whole, _) = train(learner(1), on, temporary().path(), |training| {
            training.num_epochs(4)
        });

        let directory = temporary();
        let checkpoints = |training: SupervisedTraining<SamModel<NormMlp>>| {
            training
                .with_default_checkpointers()
                .with_checkpointing_strategy(KeepLastNCheckpoints::new(2))
        };
        train(learner(1), on, directory.path(), |training| {
            checkpoints(training).num_epochs(2)
        });
        // Its weights come from the checkpoint, whatever it starts from.
        let (resumed, losses) = train(learner(9), on, directory.path(), |training| {
            checkpoints(training).num_epochs(4).checkpoint(2)
        });
        assert_eq!(losses.len(), 2);
        assert!(same_training(&resumed.model, &whole.model), "{device:?}");
    }
}

#[test]
fn checkpoints_and_records_are_those_of_the_model() {
    let device = cpu_devices()[0].clone().autodiff();
    let on = (BATCHES, &device);
    let directory = temporary();
    let checkpoints =
        |training: SupervisedTraining<_>| training.with_default_checkpointers().num_epochs(1);
    let learner = Learner::new(sam().init(Mlp::new(1, &device)), sgd(), LR);
    let (trained, _) = train(learner, on, directory.path(), checkpoints);

    // A run without SAM goes on from a checkpoint made with it.
    let learner = Learner::new(Mlp::new(5, &device), sgd(), 0.0);
    let (plain, _) = train(learner, on, directory.path(), |training| {
        training
            .with_default_checkpointers()
            .num_epochs(2)
            .checkpoint(1)
    });
    assert!(same_values(&plain.model, &trained.model));

    let record = trained.model.into_inner().into_record();
    let loaded = sam().init(Mlp::new(7, &device)).load_record(record);
    assert!(same_values(&loaded, &plain.model));
    let loaded = Mlp::new(8, &device).load_record(loaded.into_record());
    assert!(same_values(&loaded, &plain.model));
}

#[test]
fn paths_and_groups_are_those_of_the_model() {
    for device in cpu_devices() {
        let device = device.autodiff();
        let model = NormMlp::new(1, &device);
        let wrapped = sam().init(model.clone());
        assert_eq!(values(&wrapped), values(&model));
        assert_eq!(wrapped.num_params(), model.num_params());
        assert_eq!(wrapped.devices(), model.devices());
        let record = |record: ModuleRecord| record.into_bytes().unwrap().to_vec();
        assert_eq!(
            record(wrapped.clone().into_record()),
            record(model.clone().into_record())
        );
        let group = ParamGroup::from_path("hidden.weight");
        assert_eq!(
            record(wrapped.clone().into_record_group(group.clone())),
            record(model.clone().into_record_group(group))
        );

        let frozen = wrapped
            .freeze_group(ParamGroup::from_predicate("hidden"))
            .into_inner();
        assert!(!frozen.hidden.weight.is_require_grad());
        assert!(frozen.output.weight.is_require_grad());
    }
}

/// A function that knows nothing of SAM.
fn weights_of(model: &Mlp) -> Vec<f32> {
    read(model.hidden.weight.val())
}

#[test]
fn what_is_wrapped_can_be_looked_at() {
    for device in cpu_devices() {
        let device = device.autodiff();
        let (model, points) = (Mlp::new(1, &device), Points::new(0, &device));
        let config = sam().with_adaptive(true).with_eta(0.01);
        let wrapped = config.init(model.clone());
        assert_eq!(wrapped.config(), &config);
        assert_eq!(weights_of(&wrapped), weights_of(&model));
        assert_eq!(
            read(wrapped.forward(points.x.clone())),
            read(model.forward(points.x))
        );
    }
}

/// As the Learner's summary has it.
#[test]
fn printed_it_shows_its_settings_and_its_model() {
    let device = cpu_devices()[0].clone().autodiff();
    let model = Mlp::new(1, &device);
    let lines = |text: String| -> Vec<String> { text.lines().map(str::to_string).collect() };
    let indented = lines(model.to_string().replace('\n', "\n  "));
    let mut expected = vec!["SamModel {".to_string(), "  rho: 0.5".to_string()];
    expected.push(format!("  model: {}", indented[0]));
    expected.extend(indented[1..].iter().cloned());
    expected.push("}".to_string());
    assert_eq!(lines(sam().init(model.clone()).to_string()), expected);

    let config = SamConfig::new()
        .with_rho(2.0)
        .with_adaptive(true)
        .with_eta(0.01)
        .with_group(ParamGroup::from_predicate("bias"), 0.0)
        .with_ascent_fraction(0.5);
    let text = config.init_on_part(model, Points::part).to_string();
    for line in [
        "\n  rho: 2\n",
        "bias",
        "\n  adaptive: true\n  eta: 0.01\n",
        "\n  ascent fraction: 0.5\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
}

/// A generator that trains with SAM beside something else, in one module.
#[derive(Module, Debug)]
struct Pair {
    climbing: SamModel<Mlp>,
    plain: Mlp,
}

#[test]
fn it_nests_in_other_modules() {
    for device in cpu_devices() {
        let device = device.autodiff();
        let model = Mlp::new(1, &device);
        let pair = Pair {
            climbing: sam().init(model.clone()),
            plain: Mlp::new(2, &device),
        };
        assert_eq!(pair.num_params(), 2 * model.num_params());
        let paths: Vec<String> = values(&pair).into_iter().map(|(path, _)| path).collect();
        assert_eq!(paths[0], "climbing.hidden.weight");
        assert_eq!(paths[4], "plain.hidden.weight");
        let text = pair.to_string();
        assert!(
            text.contains("climbing: SamModel {\n    rho: 0.5\n    model: Mlp {"),
            "{text}"
        );
        let loaded = pair.clone().load_record(pair.clone().into_record());
        assert!(same_values(&loaded, &pair));
        let points = Points::new(0, &device);
        let grads = TrainStep::step(&pair.climbing, points.clone()).grads;
        let expected = TrainStep::step(&sam().init(model.clone()), points).grads;
        let weight = model.hidden.weight.id;
        assert_eq!(
            read(grads.get::<2>(weight).unwrap()),
            read(expected.get::<2>(weight).unwrap())
        );
    }
}

#[test]
fn a_sam_model_is_not_wrapped_again() {
    for device in cpu_devices() {
        let device = device.autodiff();
        let wrapped = sam().init(Mlp::new(1, &device));
        let message = panic_message(|| sam().init(wrapped.clone()));
        assert!(message.contains("it would take four"), "{message}");
        assert!(message.contains("SamModel::into_inner"), "{message}");
        let message = panic_message(|| {
            let config = sam().with_ascent_fraction(0.5);
            config.init_on_part(wrapped, Points::part)
        });
        assert!(message.contains("it would take four"), "{message}");
    }
}

#[test]
fn accumulated_gradients_are_those_of_the_second_passes() {
    for device in cpu_devices() {
        let device = device.autodiff();
        let model = Mlp::new(1, &device);
        let learner = Learner::new(sam().init(model.clone()), SgdConfig::new().init(), LR);
        let (result, _) = train(learner, (2, &device), temporary().path(), |training| {
            training.grads_accumulation(2)
        });
        let expected = summed_step(&model, [&device, &device]);
        assert!(same_training(&result.model.into_inner(), &expected));
    }
}

/// One step of plain SGD with the sum of two batches' second gradients.
fn summed_step(model: &Mlp, devices: [&Device; 2]) -> Mlp {
    let mut accumulator = burn::optim::GradientsAccumulator::new();
    for (seed, device) in (0..).zip(devices) {
        let points = Points::new(seed, device);
        let model = model.clone().fork(device);
        let climbed = sam().climb(model.clone(), model.gradients(&points));
        let grads = climbed.gradients(&points).to_device(devices[0], &model);
        accumulator.accumulate(&model, grads);
    }
    SgdConfig::new()
        .init()
        .step(LR, model.clone(), accumulator.grads())
}

#[test]
fn several_devices_climb_on_their_own_share() {
    let [flex, ndarray] = &cpu_devices()[..] else {
        panic!("two CPU devices")
    };
    let (flex, ndarray) = (flex.clone().autodiff(), ndarray.clone().autodiff());
    for (second, strategy) in [
        (&flex, MultiDeviceOptim::OptimMainDevice),
        (&ndarray, MultiDeviceOptim::OptimMainDevice),
        (&flex, MultiDeviceOptim::OptimSharded),
        (&ndarray, MultiDeviceOptim::OptimSharded),
    ] {
        let model = Mlp::new(1, &flex);
        let learner = Learner::new(sam().init(model.clone()), SgdConfig::new().init(), LR);
        let devices = vec![flex.clone(), second.clone()];
        let (result, _) = train(learner, (2, &flex), temporary().path(), |training| {
            training.with_training_strategy(TrainingStrategy::Default(ExecutionStrategy::multi(
                devices, strategy,
            )))
        });
        let expected = summed_step(&model, [&flex, second]);
        let trained = result.model.into_inner();
        for ((path, trained), (_, expected)) in values(&trained).iter().zip(values(&expected)) {
            for (trained, expected) in trained.iter().zip(expected) {
                assert!(
                    (trained - expected).abs() < 1e-6,
                    "{path} with {second:?}, {strategy:?}: {trained} for {expected}"
                );
            }
        }
    }
}

#[test]
fn early_stopping_stops() {
    let device = cpu_devices()[0].clone().autodiff();
    let learner = Learner::new(sam().init(Mlp::new(1, &device)), sgd(), 0.0);
    let (_, losses) = train(
        learner,
        (BATCHES, &device),
        temporary().path(),
        |training| {
            training
                .num_epochs(20)
                .early_stopping(MetricEarlyStoppingStrategy::new(
                    &LossMetric::new(),
                    Aggregate::Mean,
                    Direction::Lowest,
                    Split::Valid,
                    StoppingCondition::NoImprovementSince { n_epochs: 2 },
                ))
        },
    );
    assert_eq!(losses.len(), 3);
}

#[test]
fn checkpointed_gradients_train() {
    for device in cpu_devices() {
        let device = device.autodiff();
        let train = |checkpointing| {
            let device = match checkpointing {
                true => device.clone().gradient_checkpointing(),
                false => device.clone(),
            };
            let learner = Learner::new(sam().init(NormMlp::new(1, &device)), sgd(), LR);
            let (result, _) = train(
                learner,
                (BATCHES, &device),
                temporary().path(),
                |training| match checkpointing {
                    true => training.gradient_checkpointing(),
                    false => training,
                },
            );
            result.model
        };
        assert!(same_values(&train(true), &train(false)));
    }
}

#[test]
fn a_sam_optimizer_without_a_sam_model_stops_the_training() {
    let device = cpu_devices()[0].clone().autodiff();
    let optim = sam().optimizer(SgdConfig::new().build());
    let learner = Learner::new(Mlp::new(1, &device), optim.into(), LR);
    let message = panic_message(|| {
        train(
            learner,
            (BATCHES, &device),
            temporary().path(),
            |training| training,
        )
    });
    assert!(
        message.contains("wrap the model with SamConfig::init(model)"),
        "{message}"
    );
}

/// A model that keeps its weights within bounds, in the hook that Burn has for it.
#[derive(Module, Debug)]
struct Clamped {
    model: Mlp,
}

struct Clamp;

impl ModuleMapper for Clamp {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|weight| weight.inner().clamp(-0.1, 0.1).autodiff().require_grad())
    }
}

impl TrainStep for Clamped {
    type Input = Points;
    type Output = RegressionOutput;

    fn step(&self, points: Points) -> TrainOutput<RegressionOutput> {
        TrainStep::step(&self.model, points)
    }

    fn optimize(
        self,
        optim: &mut ModuleOptimizer,
        lr: ModuleLearningRate,
        grads: GradientsParams,
    ) -> Self {
        optim.step(lr, self, grads).map(&mut Clamp)
    }
}

impl InferenceStep for Clamped {
    type Input = Points;
    type Output = RegressionOutput;

    fn step(&self, points: Points) -> RegressionOutput {
        InferenceStep::step(&self.model, points)
    }
}

#[test]
fn the_models_own_optimize_is_called() {
    let device = cpu_devices()[0].clone().autodiff();
    let model = Clamped {
        model: Mlp::new(1, &device),
    };
    let learner = Learner::new(sam().init(model), sgd(), LR);
    let (result, _) = train(
        learner,
        (BATCHES, &device),
        temporary().path(),
        |training| training,
    );
    let values = values(&result.model);
    assert!(
        values
            .iter()
            .flat_map(|(_, values)| values)
            .all(|value| value.abs() <= 0.1 + 1e-7)
    );
}

/// A model that notes, for each pass, whether its weight is distributed over workers. It makes its
/// gradients by hand: a distributed backward pass needs several machines.
#[cfg(feature = "wgpu")]
#[derive(Module, Debug)]
struct Distributed {
    weight: Param<Tensor<1>>,
    #[module(skip)]
    passes: std::sync::Arc<std::sync::Mutex<Vec<bool>>>,
}

#[cfg(feature = "wgpu")]
impl TrainStep for Distributed {
    type Input = Points;
    type Output = RegressionOutput;

    fn step(&self, points: Points) -> TrainOutput<RegressionOutput> {
        let mut passes = self.passes.lock().unwrap();
        passes.push(self.weight.is_distributed());
        let mut grads = GradientsParams::new();
        grads.register(self.weight.id, self.weight.val().inner());
        let item =
            RegressionOutput::new(Tensor::zeros([1], &points.x.device()), points.x, points.y);
        TrainOutput { grads, item }
    }
}

/// Only Cube backends know of distribution.
#[cfg(feature = "wgpu")]
#[test]
fn the_first_pass_of_a_distributed_model_is_local() {
    let Some(device) = burn_sam_tests::wgpu_device() else {
        return;
    };
    let device = device.autodiff();
    let weight = Param::from_tensor(Tensor::<1>::ones([3], &device));
    let id = weight.id;
    let model = Distributed {
        weight: weight.map(|weight| weight.set_distributed(id)),
        passes: Default::default(),
    };
    TrainStep::step(&sam().init(model.clone()), Points::new(0, &device));
    assert_eq!(*model.passes.lock().unwrap(), [false, true]);
    assert!(model.weight.is_distributed());
}
