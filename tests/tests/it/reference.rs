//! Agreement with other implementations, to the tolerances that `docs/conformance.md` gives.

use std::path::{Path, PathBuf};

use burn::optim::{AdamWState, AdaptiveMomentumState, LearningRate, Optimizer};
use burn::tensor::{Device, FloatDType, Tensor};
use burn_sam_tests::{cpu_devices, wgpu_device};
use conformance::{Case, CaseError, replay, replay_with};

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data")
}

fn cases() -> Vec<Case> {
    let mut files: Vec<_> = std::fs::read_dir(data())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .collect();
    files.sort();
    files.iter().map(|file| Case::load(file).unwrap()).collect()
}

#[test]
fn trajectories_agree_in_f64() {
    let cases = cases();
    assert_eq!(cases.len(), 19);
    for device in cpu_devices() {
        for case in &cases {
            let deviations = replay(case, &device, FloatDType::F64);
            let tolerance = if case.has_adam_base() { 1e-5 } else { 1e-10 };
            assert!(
                deviations.largest() <= tolerance,
                "{} on {device:?}: {deviations:?}",
                case.name
            );
        }
    }
}

#[test]
fn trajectories_agree_in_f32() {
    for device in cpu_devices().into_iter().chain(wgpu_device()) {
        for case in cases() {
            let deviations = replay(&case, &device, FloatDType::F32);
            assert!(
                deviations.largest() <= 1e-5,
                "{} on {device:?}: {deviations:?}",
                case.name
            );
        }
    }
}

/// AdamW as PyTorch has it, all of it in f64; Adam with a decay of 0. The hyperparameters are those
/// of the reference cases.
#[derive(Clone)]
struct ExactAdam {
    decay: f64,
}

impl Optimizer for ExactAdam {
    type State<const D: usize> = AdamWState<D>;

    fn step<const D: usize>(
        &self,
        lr: LearningRate,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<AdamWState<D>>,
    ) -> (Tensor<D>, Option<AdamWState<D>>) {
        let [beta_1, beta_2, eps]: [f64; 3] = [0.875, 0.9990234375, 7.450580596923828e-9];
        let (time, first, second) = match state {
            Some(AdamWState { momentum }) => (momentum.time, momentum.moment_1, momentum.moment_2),
            None => (0, grad.zeros_like(), grad.zeros_like()),
        };
        let time = time + 1;
        let first = first * beta_1 + grad.clone() * (1.0 - beta_1);
        let second = second * beta_2 + grad.square() * (1.0 - beta_2);
        let correction = |beta: f64| 1.0 - beta.powi(time as i32);
        let deviation = (second.clone() / correction(beta_2)).sqrt() + eps;
        let step = first.clone() / correction(beta_1) / deviation;
        let state = AdamWState::new(AdaptiveMomentumState::new(time, first, second));
        (tensor * (1.0 - lr * self.decay) - step * lr, Some(state))
    }

    fn to_device<const D: usize>(state: AdamWState<D>, _device: &Device) -> AdamWState<D> {
        state
    }
}

/// What keeps the Adam cases from 1e-10 is Burn's bias correction in f32, and nothing else.
#[test]
fn with_adams_bias_correction_in_f64_all_agree() {
    let adam: Vec<Case> = cases().into_iter().filter(Case::has_adam_base).collect();
    assert_eq!(adam.len(), 4);
    for device in cpu_devices() {
        for case in &adam {
            let decay = if case.name.ends_with("adamw") {
                0.0078125
            } else {
                0.0
            };
            let deviations =
                replay_with(case, ExactAdam { decay }.into(), &device, FloatDType::F64);
            assert!(
                deviations.largest() <= 1e-10,
                "{}: {deviations:?}",
                case.name
            );
            let burns = replay(case, &device, FloatDType::F64);
            assert!(
                burns.largest() > 1e-8,
                "{}: {burns:?}: say so in the docs",
                case.name
            );
        }
    }
}

/// A replay of something else must be seen to deviate, or agreement says nothing.
#[test]
fn a_wrong_reference_does_not_agree() {
    let device = &cpu_devices()[0];
    let mut case = Case::load(data().join("sam_sgd.json")).unwrap();
    case.last[0].bias[0] += 1e-6;
    let deviations = replay(&case, device, FloatDType::F64);
    assert!(deviations.weights > 1e-8 && deviations.losses < 1e-10);

    case.steps[3].loss_perturbed = f64::NAN;
    let deviations = replay(&case, device, FloatDType::F64);
    assert!(deviations.largest().is_nan());
}

/// A copy of a reference file with one value replaced.
fn altered(path: &[&str], value: serde_json::Value) -> Result<Case, CaseError> {
    let text = std::fs::read_to_string(data().join("sam_sgd.json")).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
    *path.iter().fold(&mut json, |json, key| &mut json[key]) = value;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), json.to_string()).unwrap();
    Case::load(file.path())
}

#[test]
fn what_is_not_known_is_named() {
    for (path, value, named) in [
        (&["method", "name"][..], "vasso", "vasso"),
        (&["base", "name"][..], "lion", "lion"),
        (&["base", "dampening"][..], "0.1", "dampening"),
    ] {
        match altered(path, value.into()) {
            Err(CaseError::Unsupported(message)) => assert!(message.contains(named), "{message}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_is_no_trajectory_is_refused() {
    for (path, value) in [
        (&["steps"][..], serde_json::json!([])),
        (&["init"][..], serde_json::json!([])),
        (&["method"][..], serde_json::json!({})),
        (&["model", "loss"][..], "cross_entropy".into()),
    ] {
        assert!(matches!(altered(path, value), Err(CaseError::Invalid(_))));
    }
    assert!(matches!(
        Case::load("no such file"),
        Err(CaseError::Invalid(_))
    ));
}
