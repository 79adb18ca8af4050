//! What becomes of a model between steps, and of what is kept beside it.

use burn::config::Config;
use burn::module::{Devices, Module, ModuleMapper, ModuleVisitor, Param, ParamGroup};
use burn::nn::Linear;
use burn::optim::{GradientsAccumulator, GradientsParams, ModuleOptimizer, SgdConfig};
use burn::store::ModuleRecord;
use burn::tensor::activation::tanh;
use burn::tensor::{Device, Tensor};
use burn::train::TrainStep;
use burn_sam::{Radius, SamConfig, SamModel, SamSteps};
use burn_sam_tests::{
    FEATURES, Mlp, NormMlp, Points, TrainingModel, auto_looksam, cpu_devices, devices, linear,
    panic_message, read, same_training, same_values, values, warnings,
};

use crate::methods::{near, with_memory};

const LR: f64 = 0.1;
const RHO: f64 = 0.3;

fn sgd() -> ModuleOptimizer {
    SgdConfig::new().init()
}

fn batches(device: &Device) -> Vec<Points> {
    (0..9).map(|seed| Points::new(seed, device)).collect()
}

/// How far two modules are from one another.
fn distance<M: Module>(a: &M, b: &M) -> f64 {
    let squares = values(a)
        .into_iter()
        .zip(values(b))
        .map(|((_, a), (_, b))| a.iter().zip(&b).map(|(a, b)| (a - b).powi(2)).sum::<f64>());
    squares.sum::<f64>().sqrt()
}

/// A step, and how far its last pass was from w.
fn step(steps: &mut SamSteps, model: Mlp, points: &Points) -> (Mlp, f64) {
    let (w, mut far) = (model.clone(), 0.0);
    let (model, _) = steps.minimize(&mut sgd(), LR, model, |model: &Mlp| {
        far = distance(model, &w);
        model.loss(points)
    });
    (model, far)
}

fn is_at_rho(far: f64) -> bool {
    (far - RHO).abs() < 1e-5
}

fn msam() -> SamConfig {
    SamConfig::msam().with_rho(RHO)
}

#[test]
fn steps_that_were_made_for_another_model_train_this_one() {
    for device in cpu_devices() {
        let device = device.autodiff();
        for sam in with_memory() {
            let of_another = Mlp::new(1, &device);
            let mut steps = sam.steps(&of_another);
            // Other ids, and the weights of a record.
            let record = Mlp::new(2, &device).into_record();
            let loaded = of_another.load_record(record);
            let mut expected_steps = sam.steps(&loaded);
            let (mut model, mut expected) = (loaded.clone(), loaded);
            for points in &batches(&device) {
                (model, _) = step(&mut steps, model, points);
                (expected, _) = step(&mut expected_steps, expected, points);
            }
            assert!(same_training(&model, &expected), "{sam} on {device:?}");
        }
        let mut steps = msam().steps(&Mlp::new(1, &device));
        let mut model = Mlp::new(2, &device);
        for (index, points) in batches(&device).iter().enumerate() {
            let far;
            (model, far) = step(&mut steps, model, points);
            assert!(
                if index == 0 {
                    far == 0.0
                } else {
                    is_at_rho(far)
                },
                "{far}"
            );
        }
    }
}

/// In the middle of a training, all starts anew, as with steps of its own, and the log says so once.
#[test]
fn another_model_in_the_middle_starts_anew() {
    for device in cpu_devices() {
        let device = device.autodiff();
        for sam in with_memory() {
            let mut steps = sam.steps(&Mlp::new(1, &device));
            let (mut model, mut own) = (Mlp::new(1, &device), None);
            let said = warnings(|| {
                for (index, points) in batches(&device).iter().enumerate() {
                    if index == 4 {
                        model = Mlp::new(2, &device);
                        own = Some((model.clone(), sam.steps(&model)));
                    }
                    (model, _) = step(&mut steps, model.clone(), points);
                    if let Some((of_own, own_steps)) = &mut own {
                        *of_own = step(own_steps, of_own.clone(), points).0;
                        assert!(same_values(&model, of_own), "{sam} at {index}");
                    }
                }
                // Two in turns.
                for points in &batches(&device) {
                    (model, _) = step(&mut steps, Mlp::new(3, &device), points);
                }
            });
            assert_eq!(said.len(), 1, "{sam}: {said:?}");
            assert!(
                said[0].contains("One SamSteps is for one model"),
                "{said:?}"
            );
        }
    }
}

/// What a record of a module with frozen parts has is loaded into one without, and the other way round.
#[test]
fn records_from_before_something_was_unfrozen_load() {
    for device in cpu_devices() {
        let device = device.autodiff();
        for sam in with_memory() {
            let mut frozen = Mlp::new(1, &device);
            frozen.hidden = frozen.hidden.freeze();
            let mut steps = sam.steps(&frozen);
            for points in &batches(&device)[..4] {
                frozen = step(&mut steps, frozen, points).0;
            }
            let (record, kept) = (steps.record(frozen.clone()), steps.clone());
            let unfrozen = |model: &Mlp| {
                let mut model = model.clone();
                model.hidden = model.hidden.unfreeze();
                model
            };
            // By the steps that it was recorded of, and by new ones of a model that is not frozen.
            for (mut steps, fresh) in [
                (steps.clone(), unfrozen(&Mlp::new(5, &device))),
                (sam.steps(&Mlp::new(5, &device)), Mlp::new(5, &device)),
            ] {
                let said = warnings(|| {
                    let mut loaded = steps.try_load_record(fresh, record.clone()).unwrap();
                    let (mut model, mut kept) = (unfrozen(&frozen), kept.clone());
                    for points in &batches(&device)[4..] {
                        loaded = step(&mut steps, loaded, points).0;
                        model = step(&mut kept, model, points).0;
                    }
                    near(&loaded, &model, 1e-6);
                });
                let known = |said: &String| said.contains("starts anew for hidden.weight");
                assert!(said.iter().all(known), "{sam}: {said:?}");
            }
        }
    }
}

/// Burn brings running statistics up to date when a module is validated.
#[test]
fn records_have_the_last_steps_running_statistics() {
    for device in cpu_devices() {
        let device = device.autodiff();
        let mut model = NormMlp::new(1, &device);
        let mut steps = msam().steps(&model);
        for points in &batches(&device)[..3] {
            (model, _) = steps.minimize(&mut sgd(), LR, model, |model: &NormMlp| {
                model.predict(points).loss
            });
        }
        let record = steps.record(model.clone());
        let loaded = steps
            .try_load_record(NormMlp::new(2, &device), record)
            .unwrap();
        assert_eq!(loaded.statistics(), model.statistics());
    }
}

/// A parameter that is new has no part in LookSAM's v, but in |g|.
#[test]
fn looksam_measures_the_whole_gradient() {
    for device in cpu_devices() {
        let device = device.autodiff();
        let mut model = Mlp::new(1, &device);
        model.hidden = model.hidden.freeze();
        let mut steps = SamConfig::looksam().with_rho(RHO).steps(&model);
        let points = batches(&device);
        let w = model.clone();
        let (updated, _) = step(&mut steps, model, &points[0]);
        // v, of the parameters that were there.
        let g = w.gradients(&points[0]);
        let climbed = SamConfig::new().with_rho(RHO).climb(w.clone(), g);
        let weight = |grads: &GradientsParams| read(grads.get::<2>(w.output.weight.id).unwrap());
        let bias = |grads: &GradientsParams| {
            read(grads.get::<1>(w.output.bias.as_ref().unwrap().id).unwrap())
        };
        let of_output = |grads: GradientsParams| [weight(&grads), bias(&grads)].concat();
        let (g, h) = (
            of_output(w.gradients(&points[0])),
            of_output(climbed.gradients(&points[0])),
        );
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let along = dot(&g, &h) / dot(&g, &g);
        let v: Vec<f32> = g.iter().zip(&h).map(|(g, h)| h - along * g).collect();

        let mut model = updated;
        model.hidden = model.hidden.unfreeze();
        let grads = model.gradients(&points[1]);
        let mut squares = 0.0;
        for values in [
            read(grads.get::<2>(model.hidden.weight.id).unwrap()),
            read(
                grads
                    .get::<1>(model.hidden.bias.as_ref().unwrap().id)
                    .unwrap(),
            ),
            of_output(model.gradients(&points[1])),
        ] {
            squares += dot(&values, &values);
        }
        let before = read(model.output.weight.val());
        let g = weight(&grads);
        let (updated, _) = step(&mut steps, model, &points[1]);
        let scale = 0.5 * (squares / dot(&v, &v)).sqrt();
        for (index, after) in read(updated.output.weight.val()).into_iter().enumerate() {
            let expected = before[index] - 0.1 * (g[index] + scale * v[index]);
            assert!((after - expected).abs() < 1e-5, "{after} for {expected}");
        }
    }
}

/// Gradients of another module are no gradients to descend along.
#[test]
fn a_descent_of_another_model_is_told() {
    let device = cpu_devices()[0].clone().autodiff();
    let (points, model) = (&batches(&device)[0], Mlp::new(1, &device));
    let climbed = SamConfig::new().climb(model.clone(), model.gradients(points));
    let message = panic_message(|| climbed.descent(Mlp::new(2, &device).gradients(points)));
    assert!(message.contains("none belongs to a parameter"), "{message}");
}

/// A part that is unfrozen climbs from then on, in loops and in the Learner.
#[test]
fn what_is_unfrozen_takes_part() {
    for device in cpu_devices() {
        let device = device.autodiff();
        for sam in with_memory() {
            let mut start = Mlp::new(1, &device);
            start.hidden = start.hidden.freeze();
            let (mut model, mut steps) = (start.clone(), sam.steps(&start));
            let mut wrapped = sam.init(start.clone());
            let (mut optim, mut learner_optim) = (sgd(), sgd());
            let mut hidden_climbed = false;
            // The rule at one pass stays at w until the 20th.
            for (index, points) in batches(&device).iter().cycle().take(24).enumerate() {
                if index == 3 {
                    model.hidden = model.hidden.unfreeze();
                    wrapped = wrapped.unfreeze();
                }
                let hidden = model.hidden.clone();
                (model, _) = steps.minimize(&mut optim, LR, model, |model: &Mlp| {
                    let climbed = !same_values(&model.hidden, &hidden);
                    assert!(!climbed || index >= 3, "{sam} climbs what is frozen");
                    hidden_climbed |= climbed;
                    model.loss(points)
                });
                wrapped = learn(wrapped, &mut learner_optim, points);
            }
            assert!(hidden_climbed, "{sam}");
            near(&*wrapped, &model, 1e-5);
            assert!(!same_values(&model.hidden, &start.hidden));
        }
    }
}

fn learn(model: SamModel<Mlp>, optim: &mut ModuleOptimizer, points: &Points) -> SamModel<Mlp> {
    let mut accumulator = GradientsAccumulator::new();
    accumulator.accumulate(&model, TrainStep::step(&model, points.clone()).grads);
    TrainStep::optimize(model, optim, LR.into(), accumulator.grads())
}

/// A guard that puts the model back, but not the steps.
#[test]
fn a_step_of_nans_that_is_undone_leaves_nothing() {
    for device in cpu_devices() {
        let device = device.autodiff();
        for sam in with_memory() {
            let mut model = Mlp::new(1, &device);
            let mut steps = sam.steps(&model);
            for (index, points) in batches(&device).iter().enumerate() {
                let good = model.clone();
                let bad = index == 3 || index == 5;
                (model, _) = steps.minimize(&mut sgd(), LR, model, |model: &Mlp| {
                    assert!(
                        values(model)
                            .iter()
                            .flat_map(|(_, v)| v)
                            .all(|v| v.is_finite()),
                        "{sam} at {index}"
                    );
                    let loss = model.loss(points);
                    if bad { loss * f32::NAN } else { loss }
                });
                if bad {
                    model = good;
                }
                assert!(
                    values(&model)
                        .iter()
                        .flat_map(|(_, v)| v)
                        .all(|v| v.is_finite())
                );
                assert!(read(steps.rho())[0].is_finite());
            }
        }
    }
}

#[test]
fn a_pass_of_msam_is_at_rho_from_the_weights_that_it_is_given() {
    for device in devices() {
        let device = device.autodiff();
        let mut model = Mlp::new(1, &device);
        let mut steps = msam().steps(&model);
        let mut old = Vec::new();
        for (index, points) in batches(&device).iter().enumerate() {
            old.push(model.clone());
            // Put back, clipped, replaced, or gone to NaN and put back.
            match index {
                3 => model = old[1].clone(),
                5 => {
                    let weight = model.output.weight.val().inner().clamp(-0.3, 0.3);
                    let weight = Tensor::from_inner(weight).require_grad();
                    model.output.weight = Param::initialized(model.output.weight.id, weight);
                }
                _ => {}
            }
            let far;
            (model, far) = step(&mut steps, model, points);
            assert!(
                is_at_rho(far) || (index == 0 && far == 0.0),
                "{far} at {index}"
            );
        }
        // To where it was before the update: there is no direction.
        let before = model.clone();
        (model, _) = step(&mut steps, model, &batches(&device)[0]);
        assert!(!same_values(&model, &before));
        let (_, far) = step(&mut steps, before, &batches(&device)[1]);
        assert_eq!(far, 0.0);
    }
}

/// Records and files of version 0.1.0 as it was before vectors (MSAM then kept the weights at w + e(w)), after four steps,
/// and where three more steps ended.
#[test]
fn records_and_files_from_before_go_on() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("data/records");
    let mut files = 0;
    for device in cpu_devices() {
        let device = device.autodiff();
        for number in 0.. {
            let file = |end: &str| directory.join(format!("{number}{end}"));
            if !file(".json").exists() {
                break;
            }
            files += 1;
            let sam = SamConfig::load(file(".json")).unwrap();
            let load = |end: &str| ModuleRecord::load(file(end)).unwrap();
            let said = warnings(|| {
                let mut model = sam.init(Mlp::new(7, &device)).load_record(load(".bpk"));
                let mut optim = sgd();
                for points in &batches(&device)[4..7] {
                    model = learn(model, &mut optim, points);
                }
                let after = Mlp::new(8, &device).load_record(load("-after.bpk"));
                // Since then, the rule has a bound on |h| / |g|.
                let is_rule = matches!(sam.radius(), Radius::Rule { .. });
                near(&*model, &after, if is_rule { 1e-3 } else { 1e-5 });
            });
            assert!(said.is_empty(), "{sam}: {said:?}");
        }
    }
    assert_eq!(files, 2 * 13);
}

/// One batch out of all proportion costs the rule a few steps.
#[test]
fn an_outlier_does_not_poison_the_rule() {
    for device in cpu_devices() {
        let device = device.autodiff();
        for sam in [SamConfig::auto_two_pass(), auto_looksam().with_every(2)] {
            for size in [1.0, 30.0, 1e4, 1e8, 1e12] {
                let mut model = Mlp::new(1, &device);
                let mut steps = sam.steps(&model);
                let mut optim = sgd().with_grad_clipping(
                    burn::grad_clipping::GradientClippingConfig::Norm(1.0).init(),
                );
                let (mut rhos, mut last) = (Vec::new(), 0.0);
                for index in 0..160u64 {
                    let mut points = Points::new(index % 4, &device);
                    if index == 60 {
                        points.y = points.y * size;
                    }
                    (model, _) =
                        steps.minimize(&mut optim, 0.05, model, |model: &Mlp| model.loss(&points));
                    rhos.push(read(steps.rho())[0]);
                    last = read(model.loss(&Points::new(0, &device)))[0];
                }
                let (before, after) = (rhos[59], rhos[75]);
                assert!(
                    after > before / 3.0 && after < before * 3.0,
                    "{size}: from {before} to {after} with {sam}"
                );
                assert!(last < 1.0, "{size}: {last}");
            }
        }
    }
}

#[test]
fn a_loss_below_zero_leaves_rho_where_it_is_and_says_so() {
    for device in cpu_devices() {
        let device = device.autodiff();
        let mut rho = Vec::new();
        let said = warnings(|| {
            let mut model = Mlp::new(1, &device);
            let sam = SamConfig::new().with_radius(Radius::Rule { rise: 0.7 });
            let mut steps = sam.steps(&model);
            for (index, points) in batches(&device).iter().enumerate() {
                (model, _) = steps.minimize(&mut sgd(), 0.01, model, |model: &Mlp| {
                    // As a likelihood does, which changes its sign.
                    model.loss(points) - 0.5 * index as f64
                });
                rho.push(read(steps.rho())[0]);
            }
        });
        assert!(rho[8] > 0.01 && rho[7] == rho[8], "{rho:?}");
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains("a loss below 0 was seen"), "{said:?}");
    }
}

/// State that goes on from batch to batch is that of the pass at w.
#[test]
fn carried_state_is_handed_back_of_both_passes() {
    for device in cpu_devices() {
        let device = device.autodiff();
        let loss = |model: &Mlp, points: &Points, state: &Tensor<2>| {
            let hidden = tanh(model.hidden.forward(points.x.clone()) + state.clone());
            let output = model.output.forward(hidden.clone());
            let loss = (output - points.y.clone()).square().mean();
            (loss, hidden.detach())
        };
        let zero = || Tensor::<2>::zeros([8, 8], &device);
        let sam = SamConfig::new().with_rho(RHO);
        let (mut model, mut state) = (Mlp::new(1, &device), zero());
        let (mut by_hand, mut hand_state) = (model.clone(), zero());
        let mut steps = sam.steps(&model);
        for points in &batches(&device) {
            let (updated, passes) = steps.minimize(&mut sgd(), LR, model, |model: &Mlp| {
                loss(model, points, &state)
            });
            model = updated;
            let (value, next) = passes.at_w.unwrap();
            assert!(!value.is_autodiff());
            state = next;

            let (value, next) = loss(&by_hand, points, &hand_state);
            let climbed = sam.first_step(by_hand, value.backward());
            let (value, _) = loss(&climbed, points, &hand_state);
            by_hand = climbed.second_step(&mut sgd(), LR, value.backward());
            hand_state = next;
        }
        near(&model, &by_hand, 1e-6);
        assert_eq!(read(state), read(hand_state));
    }
}

/// Two heads over one layer, used in turns.
#[derive(Module, Debug)]
struct Heads {
    body: Linear,
    heads: [Linear; 2],
}

impl Heads {
    fn new(seed: u64, device: &Device) -> Self {
        Self {
            body: linear(seed, FEATURES, 4, device),
            heads: [1, 2].map(|head| linear(seed + head, 4, 1, device)),
        }
    }

    fn loss(&self, head: usize, points: &Points) -> Tensor<1> {
        let output = self.heads[head].forward(tanh(self.body.forward(points.x.clone())));
        (output - points.y.clone()).square().mean()
    }
}

/// What has had no gradient for a step, or not yet, is not taken for known in a record.
#[test]
fn a_part_that_is_used_in_turns_resumes_exactly() {
    for device in cpu_devices() {
        let device = device.autodiff();
        let points = batches(&device);
        for sam in with_memory() {
            for turns in [[0, 1, 0, 1, 0, 1, 0, 1], [0, 0, 0, 0, 0, 1, 0, 1]] {
                let (mut model, mut steps) = (Heads::new(1, &device), None::<SamSteps>);
                let mut resumed = None;
                for (index, head) in turns.into_iter().enumerate() {
                    if index == 5 {
                        let steps: &SamSteps = steps.as_ref().unwrap();
                        let record = steps.record(model.clone());
                        let mut new = sam.steps(&Heads::new(5, &device));
                        let loaded = new.try_load_record(Heads::new(5, &device), record).unwrap();
                        resumed = Some((loaded, new));
                    }
                    let take = |model: Heads, steps: &mut SamSteps| {
                        let loss = |model: &Heads| model.loss(head, &points[index]);
                        steps.minimize(&mut sgd(), LR, model, loss).0
                    };
                    let steps = steps.get_or_insert_with(|| sam.steps(&model));
                    model = take(model, steps);
                    resumed = resumed.map(|(model, mut steps)| (take(model, &mut steps), steps));
                }
                assert!(same_values(&resumed.unwrap().0, &model), "{sam}");
            }
        }
    }
}

/// The flags of a record are its owner's.
#[test]
fn records_that_may_miss_or_have_more_load_so() {
    let device = cpu_devices()[0].clone().autodiff();
    for sam in with_memory() {
        // Of the model alone, with some of it missing.
        let mut part = Mlp::new(3, &device);
        part.output = linear(9, 8, 1, &device);
        let group = ParamGroup::from_predicate("hidden");
        let record = part.clone().into_record_group(group).allow_partial(true);
        let mut steps = sam.steps(&Mlp::new(4, &device));
        let mut model = steps.try_load_record(Mlp::new(4, &device), record).unwrap();
        assert!(same_values(&model.hidden, &part.hidden));
        let mut own = sam.steps(&model);
        let mut of_own = model.clone();
        for points in &batches(&device)[..4] {
            model = step(&mut steps, model, points).0;
            of_own = step(&mut own, of_own, points).0;
        }
        assert!(same_values(&model, &of_own), "{sam}");
        // And of a larger model.
        #[derive(Module, Debug)]
        struct Larger {
            hidden: Linear,
            output: Linear,
            more: Linear,
        }
        let larger = Larger {
            hidden: part.hidden.clone(),
            output: part.output.clone(),
            more: linear(7, 2, 2, &device),
        };
        let record = larger.into_record();
        let refused = steps.try_load_record(Mlp::new(5, &device), record.clone());
        assert!(refused.unwrap_err().to_string().contains("more.weight"));
        let loaded = steps.try_load_record(Mlp::new(5, &device), record.allow_unused(true));
        assert!(same_values(&loaded.unwrap(), &part), "{sam}");
    }
}

/// A module written by hand, which maps its layers in another order than it visits them.
#[derive(Clone, Debug)]
struct Backwards([Linear; 2]);

impl Module for Backwards {
    fn collect_devices(&self, devices: Devices) -> Devices {
        self.0.collect_devices(devices)
    }

    fn fork(self, device: &Device) -> Self {
        Self(self.0.fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        Self(self.0.to_device(device))
    }

    fn train(self) -> Self {
        Self(self.0.train())
    }

    fn valid(&self) -> Self {
        Self(self.0.valid())
    }

    fn materialize(self) -> Self {
        Self(self.0.materialize())
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        self.0[0].visit(visitor);
        self.0[1].visit(visitor);
    }

    fn map<V: ModuleMapper>(self, mapper: &mut V) -> Self {
        let [first, second] = self.0;
        let second = second.map(mapper);
        Self([first.map(mapper), second])
    }
}

#[test]
fn a_module_that_maps_backwards_is_not_mixed_up() {
    for device in cpu_devices() {
        let device = device.autodiff();
        let layers = || [linear(1, 4, 4, &device), linear(2, 4, 4, &device)];
        let loss = |layers: &[Linear; 2]| {
            let x = Tensor::<2>::ones([1, 4], &device);
            let x = layers[1].forward(tanh(layers[0].forward(x)));
            x.square().mean()
        };
        for sam in with_memory() {
            let (mut forwards, mut backwards) = (layers(), Backwards(layers()));
            let (mut steps, mut back_steps) = (sam.steps(&forwards), sam.steps(&backwards));
            for _ in 0..5 {
                (forwards, _) = steps.minimize(&mut sgd(), LR, forwards, |m: &[Linear; 2]| loss(m));
                (backwards, _) =
                    back_steps.minimize(&mut sgd(), LR, backwards, |m: &Backwards| loss(&m.0));
            }
            assert!(same_values(&forwards[0], &backwards.0[0]), "{sam}");
            assert!(same_values(&forwards[1], &backwards.0[1]), "{sam}");
        }
    }
}
