//! Agreement with other implementations, to the tolerances that `docs/conformance.md` gives.

use std::path::{Path, PathBuf};

use burn::tensor::FloatDType;
use burn_sam_tests::{cpu_devices, wgpu_device};
use conformance::{Case, CaseError, replay};

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
    assert_eq!(cases.len(), 11);
    for device in cpu_devices() {
        for case in &cases {
            let deviations = replay(case, &device, FloatDType::F64).unwrap();
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
            let deviations = replay(&case, &device, FloatDType::F32).unwrap();
            assert!(
                deviations.largest() <= 1e-3,
                "{} on {device:?}: {deviations:?}",
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
    let deviations = replay(&case, device, FloatDType::F64).unwrap();
    assert!(deviations.weights > 1e-8 && deviations.losses < 1e-10);

    case.steps[3].loss_perturbed = f64::NAN;
    let deviations = replay(&case, device, FloatDType::F64).unwrap();
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
        (&["method", "name"][..], "gsam", "gsam"),
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
