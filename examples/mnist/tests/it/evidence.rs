use std::path::Path;
use std::process::Command;

use crate::folder;

fn run(folder: &Path, options: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_mnist-evidence"))
        .current_dir(folder)
        .args(options)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn it_trains_goes_on_where_it_was_and_draws() {
    // 2000 of them are digits from 5 to 9, to be tested on with LoRA.
    let folder = folder(4000);
    let path = folder.path();
    let short = |file: &str, more: &[&str]| {
        let mut options = vec![
            "--data", ".", "--images", "100", "--noise", "0", "--epochs", "1",
        ];
        options.extend([
            "--seeds",
            "1",
            "--methods",
            "msam",
            "--resume",
            "done",
            "--json",
            file,
        ]);
        options.extend(more);
        run(path, &options)
    };
    let done = || std::fs::read_to_string(path.join("done")).unwrap();
    let rows = |table: &str| -> Vec<String> {
        // But for the times.
        let rows = table.lines().filter(|line| line.starts_with('|'));
        rows.map(|row| row[..row.trim_end_matches(" |").rfind('|').unwrap()].to_string())
            .collect()
    };

    let table = short("a.json", &[]);
    assert!(
        table.contains("100 images, 0 % wrong labels, SGD, 1 epochs, 1 seeds"),
        "{table}"
    );
    // SGD, MSAM at five radii, and at the best of them.
    assert_eq!(done().lines().count(), 7);
    assert_eq!(rows(&short("a.json", &[])), rows(&table));
    assert_eq!(done().lines().count(), 7);

    let adapted = short("b.json", &["--lora", "--base", "adamw"]);
    assert_eq!(done().lines().count(), 14);
    assert!(rows(&adapted)[2].starts_with("| AdamW |"), "{adapted}");

    run(
        path,
        &["--load", "a.json", "b.json", "--picture", "both.svg"],
    );
    let picture = std::fs::read_to_string(path.join("both.svg")).unwrap();
    for text in [
        "100 images, 0 % wrong labels, SGD",
        "LoRA, 100 images",
        "MSAM",
        "stopped early",
    ] {
        assert!(picture.contains(text), "{text}: {picture}");
    }
}
