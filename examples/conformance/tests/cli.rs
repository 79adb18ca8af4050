//! The program as its users call it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/data")
        .join(name)
}

fn run(arguments: &[&Path]) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(env!("CARGO_BIN_EXE_conformance"))
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

/// A copy of `sam_sgd.json` with one part of its text replaced.
fn altered(from: &str, to: &str) -> tempfile::NamedTempFile {
    let text = std::fs::read_to_string(data("sam_sgd.json")).unwrap();
    assert!(text.contains(from));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text.replacen(from, to, 1)).unwrap();
    file
}

#[test]
fn agreement_is_exit_code_0() {
    for backend in ["flex", "ndarray"] {
        let (code, stdout, stderr) = run(&[
            "--backend".as_ref(),
            backend.as_ref(),
            &data("sam_sgd.json"),
            &data("asam_adamw.json"),
        ]);
        assert_eq!((code, stderr.as_str()), (Some(0), ""));
        assert_eq!(stdout.matches("agrees").count(), 2, "{stdout}");
        assert!(
            stdout.contains("1e-10") && stdout.contains("1e-5"),
            "{stdout}"
        );
    }
}

#[test]
fn disagreement_is_exit_code_1() {
    // Trained with another radius.
    let file = altered("\"rho\": 0.05", "\"rho\": 0.051");
    let (code, stdout, _) = run(&[&data("sam_sgd.json"), file.path()]);
    assert_eq!(code, Some(1));
    assert!(stdout.contains("DOES NOT AGREE"), "{stdout}");
}

#[test]
fn an_unknown_method_or_base_is_exit_code_2_and_named() {
    for (from, to, named) in [
        ("\"name\": \"sam\"", "\"name\": \"vasso\"", "vasso"),
        ("\"name\": \"sgd\"", "\"name\": \"lion\"", "lion"),
    ] {
        let file = altered(from, to);
        let (code, stdout, stderr) = run(&[file.path(), &data("sam_sgd.json")]);
        assert_eq!(code, Some(2));
        assert!(stderr.contains(named), "{stderr}");
        assert!(
            stdout.contains("agrees"),
            "the other file is replayed all the same"
        );
    }
}

#[test]
fn a_file_that_is_none_is_exit_code_1_and_named() {
    let (code, _, stderr) = run(&[Path::new("missing.json")]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("missing.json"), "{stderr}");
}
