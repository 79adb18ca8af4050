use burn::config::Config;
use burn::module::ParamGroup;
use burn::tensor::Tensor;
use burn_sam::{Descent, SamConfig};
use burn_sam_tests::{devices, panic_message, random_cases, read};
use proptest::prelude::*;
use serde_json::{Value, json};

#[derive(Config, Debug)]
struct TrainingConfig {
    #[config(default = 64)]
    batch_size: usize,
    sam: SamConfig,
}

/// As the guide has it, for files from before SAM.
#[derive(Config, Debug)]
struct ConfigThatHadNoSam {
    #[config(default = 64)]
    batch_size: usize,
    sam: Option<SamConfig>,
}

#[test]
fn a_file_from_before_sam_loads_into_an_option() {
    let load = |json: &str| {
        ConfigThatHadNoSam::load_binary(json.as_bytes())
            .unwrap()
            .sam
    };
    assert_eq!(load(r#"{"batch_size": 32}"#), None);
    assert_eq!(
        load(r#"{"batch_size": 32, "sam": {}}"#),
        Some(SamConfig::new())
    );
    let rho = load(r#"{"batch_size": 32, "sam": {"rho": 0.1}}"#).unwrap();
    assert_eq!(rho, SamConfig::new().with_rho(0.1));
    // Without the Option, Burn refuses it.
    let error = TrainingConfig::load_binary(br#"{"batch_size": 32}"#).unwrap_err();
    assert!(error.to_string().contains("missing field `sam`"), "{error}");
}

#[test]
fn what_was_set_can_be_read() {
    let sam = SamConfig::new()
        .with_rho(0.1)
        .with_adaptive(true)
        .with_eta(0.01)
        .with_eps(1e-9)
        .with_ascent_fraction(0.125)
        .with_group(ParamGroup::from_predicate("bias"), 0.0)
        .with_group(ParamGroup::from_predicate("norm"), 0.2);
    assert_eq!((sam.rho(), sam.eta(), sam.eps()), (0.1, 0.01, 1e-9));
    assert!(sam.adaptive() && sam.adaptive_biases());
    assert_eq!((sam.ascents(), sam.descent()), (1, Descent::Climbed));
    assert_eq!(sam.ascent_fraction(), 0.125);
    let groups: Vec<(String, f64)> = (sam.groups())
        .map(|(group, rho)| (format!("{group:?}"), rho))
        .collect();
    assert!(
        groups[0].0.contains("bias") && groups[1].0.contains("norm"),
        "{groups:?}"
    );
    assert_eq!(
        groups.iter().map(|(_, rho)| *rho).collect::<Vec<_>>(),
        [0.0, 0.2]
    );
}

fn file(config: &Value) -> Result<SamConfig, String> {
    SamConfig::load_binary(config.to_string().as_bytes()).map_err(|err| err.to_string())
}

#[test]
fn the_defaults_are_the_papers() {
    assert_eq!(
        serde_json::to_value(SamConfig::new()).unwrap(),
        json!({
            "rho": 0.05,
            "radius": "constant",
            "adaptive": false,
            "eta": 0.0,
            "eps": 1e-12,
            "adaptive_biases": true,
            "ascent_fraction": 1.0,
            "ascent": "gradient",
            "ascents": 1,
            "every": 1,
            "between": "plain",
            "start": 0,
            "descent": "climbed",
            "groups": []
        })
    );
}

#[test]
fn it_survives_save_and_load_inside_another_config() {
    let sam = SamConfig::new()
        .with_rho(0.1)
        .with_adaptive(true)
        .with_eta(0.01)
        .with_eps(1e-9)
        .with_ascent_fraction(0.125)
        .with_group(ParamGroup::from_predicate("bias"), 0.0)
        .with_group(ParamGroup::from_regex(r"^layers\.\d+").unwrap(), 0.2);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.json");
    TrainingConfig::new(sam.clone()).save(&path).unwrap();
    let loaded = TrainingConfig::load(&path).unwrap();
    assert_eq!(loaded.sam, sam);
    assert_ne!(loaded.sam, sam.with_rho(0.2));
}

#[test]
fn fields_missing_in_a_file_have_their_defaults() {
    assert_eq!(file(&json!({})).unwrap(), SamConfig::new());
    assert_eq!(
        file(&json!({"rho": 0.2})).unwrap(),
        SamConfig::new().with_rho(0.2)
    );
}

#[test]
fn a_file_reads_like_the_methods_name() {
    let gsam = Descent::Gsam { alpha: 0.1 };
    let wsam = Descent::Wsam {
        gamma: 0.6,
        decoupled: false,
    };
    for (json, config) in [
        (
            json!({"descent": {"gsam": {"alpha": 0.1}}}),
            SamConfig::new().with_descent(gsam),
        ),
        (
            json!({"descent": {"wsam": {"gamma": 0.6}}}),
            SamConfig::new().with_descent(wsam),
        ),
        (json!({"ascents": 3}), SamConfig::new().with_ascents(3)),
        (
            json!({"rho": 0.5, "adaptive": true, "eta": 0.01, "adaptive_biases": false}),
            SamConfig::asam(),
        ),
        // As files were before there were other methods.
        (
            json!({"rho": 0.1, "adaptive": true, "eta": 0.5, "eps": 1e-9, "ascent_fraction": 0.5,
                   "groups": []}),
            (SamConfig::new()
                .with_rho(0.1)
                .with_adaptive(true)
                .with_eta(0.5))
            .with_eps(1e-9)
            .with_ascent_fraction(0.5),
        ),
    ] {
        assert_eq!(file(&json).unwrap(), config);
        assert_eq!(
            SamConfig::load_binary(config.to_string().as_bytes()).unwrap(),
            config
        );
    }
}

#[test]
fn unknown_fields_in_a_file_are_refused_by_name() {
    let message = file(&json!({"roh": 0.2})).unwrap_err();
    assert!(message.contains("unknown field `roh`"), "{message}");
}

#[test]
fn wrong_values_from_code_are_refused_by_name_and_value() {
    for (value, shown) in [
        (-1.0, "-1"),
        (f64::NAN, "NaN"),
        (f64::INFINITY, "inf"),
        (-1e-300, "-0.000"),
    ] {
        for (name, message) in [
            ("rho", panic_message(|| SamConfig::new().with_rho(value))),
            ("eta", panic_message(|| SamConfig::new().with_eta(value))),
            ("eps", panic_message(|| SamConfig::new().with_eps(value))),
            (
                "descent.gsam.alpha",
                panic_message(|| SamConfig::new().with_descent(Descent::Gsam { alpha: value })),
            ),
            (
                "groups[0].rho",
                panic_message(|| SamConfig::new().with_group(ParamGroup::all(), value)),
            ),
        ] {
            assert!(
                message.starts_with(&format!("SamConfig: {name} is {shown}"))
                    && message.ends_with(", but must be a finite number of at least 0"),
                "{message}"
            );
        }
    }
}

#[test]
fn wrong_values_from_a_file_are_refused_by_name_and_value() {
    let group = serde_json::to_value(ParamGroup::all()).unwrap();
    for (config, expected) in [
        (json!({"rho": -1}), "SamConfig: rho is -1,"),
        (json!({"eta": -0.5}), "SamConfig: eta is -0.5,"),
        (json!({"eps": -2.0}), "SamConfig: eps is -2,"),
        // JSON has no NaN: Burn writes null.
        (json!({"rho": null}), "SamConfig: rho is NaN,"),
        (
            json!({"ascent_fraction": 0}),
            "SamConfig: ascent_fraction is 0, but must be a number above 0 and up to 1",
        ),
        (
            json!({"ascent_fraction": null}),
            "SamConfig: ascent_fraction is NaN,",
        ),
        (json!({"eps": null}), "SamConfig: eps is NaN,"),
        (json!({"ascents": 0}), "SamConfig: ascents is 0, but"),
        (
            json!({"descent": {"gsam": {"alpha": -1}}}),
            "SamConfig: descent.gsam.alpha is -1, but must be a finite number of at least 0",
        ),
        (
            json!({"descent": {"wsam": {"gamma": 1}}}),
            "SamConfig: descent.wsam.gamma is 1, but must be a number from 0 to below 1",
        ),
        (json!({"descent": "gasm"}), "unknown variant `gasm`"),
        (
            json!({"groups": [{"group": group, "rho": 0.1}, {"group": group, "rho": -3}]}),
            "SamConfig: groups[1].rho is -3,",
        ),
    ] {
        let message = file(&config).unwrap_err();
        assert!(message.contains(expected), "{message}");
    }
    // Also deep inside a user's own config.
    let nested = json!({"batch_size": 1, "sam": {"rho": -7}}).to_string();
    let message = TrainingConfig::load_binary(nested.as_bytes()).unwrap_err();
    assert!(message.to_string().contains("SamConfig: rho is -7,"));
}

#[test]
fn a_preset_goes_by_its_name() {
    for (json, config) in [
        (json!("auto"), SamConfig::auto()),
        (json!("sam"), SamConfig::new()),
        (
            json!({"preset": "msam", "rho": 1.0}),
            SamConfig::msam().with_rho(1.0),
        ),
        // Wherever it stands.
        (
            json!({"rho": 0.2, "every": 3, "preset": "looksam"}),
            SamConfig::looksam().with_rho(0.2).with_every(3),
        ),
        (json!({"preset": "friendly"}), SamConfig::friendly()),
        (json!({"preset": "asam"}), SamConfig::asam()),
        (json!("auto_two_pass"), SamConfig::auto_two_pass()),
    ] {
        assert_eq!(file(&json).unwrap(), config, "{json}");
        let nested = json!({"batch_size": 1, "sam": json}).to_string();
        assert_eq!(
            TrainingConfig::load_binary(nested.as_bytes()).unwrap().sam,
            config
        );
    }
}

/// By its field, and with no name that a user cannot know.
#[test]
fn what_is_no_configuration_is_told() {
    for (json, expected) in [
        (
            json!("atuo"),
            "SamConfig: there is no preset `atuo`; there are sam, auto",
        ),
        (
            json!({"preset": "gsam"}),
            "SamConfig: there is no preset `gsam`",
        ),
        (json!({"preset": null}), "invalid type: null"),
        (json!(3), "a SamConfig: the name of a preset, or settings"),
        (
            json!({"rho": "0.1"}),
            "SamConfig: rho: invalid type: string",
        ),
        (
            json!({"ascent": "friendly"}),
            "SamConfig: ascent: invalid type: unit variant",
        ),
        (json!({"every": null}), "SamConfig: every is null"),
        (
            json!({"groups": [{"group": "head", "rho": 0}]}),
            "SamConfig: groups: ",
        ),
        (
            json!({"between": {"looksam": {"alpha": 0.5}}}),
            "every is 1, so that every step climbs and there is none between",
        ),
        (
            json!({"radius": {"le_sam": {"sigma": 0}}}),
            "SamConfig: radius.le_sam.sigma is 0",
        ),
        (
            json!({"radius": {"le_sam": {"sigma": 1, "anneal": [5, 5]}}}),
            "SamConfig: radius.le_sam.anneal is from 5 to 5",
        ),
        (
            json!({"ascent": {"vasso": {"theta": 0}}}),
            "SamConfig: ascent.vasso.theta is 0",
        ),
        (
            json!({"ascent": "random", "descent": {"gsam": {"alpha": 0.1}}}),
            "random perturbation takes no gradient at w",
        ),
    ] {
        let message = file(&json).unwrap_err();
        assert!(message.contains(expected), "{message}");
        for internal in ["Unchecked", "Given", "Method", "InFile"] {
            assert!(!message.contains(internal), "{message}");
        }
    }
}

#[test]
fn a_fraction_that_is_none_is_refused() {
    for (value, shown) in [
        (0.0, "0"),
        (-0.5, "-0.5"),
        (1.0 + 1e-9, "1.000000001"),
        (f64::NAN, "NaN"),
        (f64::INFINITY, "inf"),
    ] {
        let message = panic_message(|| SamConfig::new().with_ascent_fraction(value));
        let expected = format!("SamConfig: ascent_fraction is {shown}, but must be");
        assert!(message.starts_with(&expected), "{message}");
    }
}

#[test]
fn a_part_has_one_sample_at_least_and_the_first_ones() {
    let part = |fraction| {
        SamConfig::new()
            .with_ascent_fraction(fraction)
            .ascent_part()
    };
    for (fraction, batch, samples) in [
        (1.0, 64, 64),
        (0.5, 5, 3),
        (0.125, 64, 8),
        (0.125, 63, 8),
        (0.0625, 7, 1),
        (1e-9, 1, 1),
        (0.5, 0, 0),
    ] {
        assert_eq!(
            part(fraction).samples(batch),
            samples,
            "{fraction} of {batch}"
        );
    }
    for device in devices() {
        let batch = Tensor::<2>::from_floats([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], &device);
        assert_eq!(read(part(0.5).of(&batch)), [1.0, 2.0, 3.0, 4.0]);
        let labels = Tensor::<1, burn::tensor::Int>::from_ints([7, 8, 9], &device);
        let first: Vec<i32> = part(0.1).of(&labels).into_data().iter().collect();
        assert_eq!(first, [7]);
    }
}

proptest! {
    #![proptest_config(random_cases(256))]

    #[test]
    fn a_part_is_nearest_to_the_fraction(fraction in 1e-6..=1.0, batch in 0..10_000usize) {
        let part = SamConfig::new().with_ascent_fraction(fraction).ascent_part();
        let samples = part.samples(batch);
        prop_assert!(samples >= batch.min(1) && samples <= batch);
        let off = (samples as f64 - fraction * batch as f64).abs();
        prop_assert!(off <= 0.5 || samples == 1, "{samples} of {batch}");

        let doubled = SamConfig::new().with_ascent_fraction((2.0 * fraction).min(1.0));
        prop_assert!(doubled.ascent_part().samples(batch) >= samples);
    }
}

/// What the pages on methods and radii show of a file, in a block or in a line.
#[test]
fn the_files_in_the_docs_load() {
    let docs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let mut pages = vec![docs.join("radii.md")];
    let methods = std::fs::read_dir(docs.join("methods")).unwrap();
    pages.extend(methods.map(|page| page.unwrap().path()));
    let mut loaded = 0;
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap().replace('\n', " ");
        let quoted =
            (text.split('`')).filter(|part| part.trim_start_matches("json ").starts_with("{\""));
        for part in quoted {
            let json = part.trim_start_matches("json ");
            let value: Value = serde_json::from_str(json)
                .unwrap_or_else(|error| panic!("{}: {json}: {error}", page.display()));
            file(&value).unwrap_or_else(|error| panic!("{}: {json}: {error}", page.display()));
            loaded += 1;
        }
    }
    assert!(loaded >= 8, "{loaded} files");
}
