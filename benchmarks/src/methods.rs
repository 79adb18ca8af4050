//! What a step of each method takes over one of plain SGD.

use std::time::{Duration, Instant};

use burn::module::Module;
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::{Device, Tensor};
use burn_sam::{AscentPart, Descent, SamConfig};

use crate::median_ms;
use crate::models::{Measurement, with};

const WARM_UP: usize = 2;
/// So many steps are timed together: LookSAM's are not all alike.
const TURN: u32 = 5;

/// A line of the table.
#[derive(serde::Serialize)]
pub struct Methods {
    model: String,
    /// Milliseconds of a step of plain SGD.
    pub sgd_ms: f64,
    /// Names, and times of a step over SGD's.
    pub over_sgd: Vec<(&'static str, f64)>,
}

impl Methods {
    /// The columns' names.
    pub fn header(&self) -> String {
        let names = self.over_sgd.iter().map(|(name, _)| format!("{name:>13}"));
        format!(
            "{:<11} {:>9} {}",
            "model",
            "sgd, ms",
            names.collect::<String>()
        )
    }
}

impl core::fmt::Display for Methods {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:<11} {:>9.3} ", self.model, self.sgd_ms)?;
        self.over_sgd
            .iter()
            .try_for_each(|(_, time)| write!(f, "{time:>13.3}"))
    }
}

/// Measures the methods that `is_wanted` names, on one of the [models](crate::models::NAMES). Takes turns: each
/// round measures each method once, so that all see the same machine.
pub fn measure(
    model: &str,
    device: &Device,
    runs: usize,
    is_wanted: impl Fn(&str) -> bool,
) -> Methods {
    let steps = Steps {
        model,
        device,
        runs,
        is_wanted,
    };
    with(model, device, steps)
}

/// What takes a step of plain SGD, and one of each method, each time with a model of its own.
pub fn steps<'a, 'b, M: Module + 'a>(
    module: &M,
    methods: impl Iterator<Item = &'b SamConfig>,
    loss: &'a dyn Fn(&M) -> Tensor<1>,
) -> Vec<Box<dyn FnMut() + 'a>> {
    const LR: f64 = 1e-6;
    let mut optim = SgdConfig::new().init();
    let sgd = in_place(module, move |now| {
        let grads = GradientsParams::from_grads(loss(&now).backward(), &now);
        optim.step(LR, now, grads)
    });
    let of = |sam: &SamConfig| {
        let (mut steps, mut optim) = (sam.steps(module), SgdConfig::new().init());
        in_place(module, move |now| {
            steps.minimize(&mut optim, LR, now, loss).0
        })
    };
    core::iter::once(sgd).chain(methods.map(of)).collect()
}

fn in_place<'a, M: Module + 'a>(
    module: &M,
    mut step: impl FnMut(M) -> M + 'a,
) -> Box<dyn FnMut() + 'a> {
    let mut module = Some(module.clone());
    Box::new(move || module = module.take().map(&mut step))
}

struct Steps<'a, F> {
    model: &'a str,
    device: &'a Device,
    runs: usize,
    is_wanted: F,
}

impl<F: Fn(&str) -> bool> Measurement for Steps<'_, F> {
    type Output = Methods;

    fn of<M: Module>(self, module: M, loss: impl Fn(&M, AscentPart) -> Tensor<1>) -> Methods {
        let whole = SamConfig::new().ascent_part();
        self.measure(&module, |module| loss(module, whole))
    }
}

impl<F: Fn(&str) -> bool> Steps<'_, F> {
    fn measure<M: Module>(self, module: &M, loss: impl Fn(&M) -> Tensor<1>) -> Methods {
        let wsam = Descent::Wsam {
            gamma: 0.6,
            decoupled: false,
        };
        let mut methods = vec![
            ("sam", SamConfig::new()),
            ("msam", SamConfig::msam()),
            ("looksam", SamConfig::looksam()),
            ("friendly", SamConfig::friendly()),
            (
                "gsam",
                SamConfig::new().with_descent(Descent::Gsam { alpha: 0.1 }),
            ),
            ("wsam", SamConfig::new().with_descent(wsam)),
            ("limited", SamConfig::new().with_descent(Descent::Limited)),
            ("auto", SamConfig::auto()),
            ("auto_two_pass", SamConfig::auto_two_pass()),
        ];
        methods.retain(|(name, _)| (self.is_wanted)(name));
        let (device, runs) = (self.device, self.runs);
        let mut turns = steps(module, methods.iter().map(|(_, sam)| sam), &loss);
        let mut times: Vec<Vec<Duration>> = turns.iter().map(|_| Vec::new()).collect();
        for round in 0..WARM_UP + runs {
            for (step, times) in turns.iter_mut().zip(&mut times) {
                device.sync().expect("the device works");
                let start = Instant::now();
                for _ in 0..TURN {
                    step();
                }
                device.sync().expect("the device works");
                if round >= WARM_UP {
                    times.push(start.elapsed() / TURN);
                }
            }
        }
        let medians: Vec<f64> = times.into_iter().filter_map(median_ms).collect();
        let over_sgd = (methods.iter().zip(&medians[1..]))
            .map(|((name, _), time)| (*name, time / medians[0]))
            .collect();
        Methods {
            model: self.model.to_string(),
            sgd_ms: medians[0],
            over_sgd,
        }
    }
}
