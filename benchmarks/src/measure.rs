//! What a step's parts take.

use std::time::{Duration, Instant};

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::{Device, Tensor};
use burn_sam::{AscentPart, Climbed, SamConfig};
use burn_sam_kernels::portable::{Scale, perturb, sum_of_squares, total};
use example_common::allocated;

use crate::floor::Floor;
use crate::median_ms;
use crate::models::{Measurement, ResNet50, with};

const WARM_UP: usize = 3;
const RHO: f64 = 0.05;

/// A line of the table.
#[derive(serde::Serialize)]
pub struct Row {
    model: String,
    device: String,
    /// A forward and a backward pass.
    pub gradient_ms: Option<f64>,
    eighth_ms: Option<f64>,
    portable_ms: f64,
    /// The whole first step.
    pub fused_ms: f64,
    /// From w + e(w) to w.
    pub back_ms: f64,
    /// The base optimizer's.
    pub update_ms: f64,
    floor_ms: Option<f64>,
    overhead: Option<f64>,
    /// The time of a step over plain SGD's.
    on_the_whole: Option<f64>,
    on_an_eighth: Option<f64>,
    /// Of compute shaders.
    launches: Option<usize>,
    extra_bytes: Option<usize>,
    parameters: usize,
}

impl Row {
    /// The columns' names.
    pub const HEADER: &'static str = "model        parameters  gradient    eighth  portable     fused    update     floor   \
         overhead   on the whole  on an eighth  portable/fused  fused/floor  fused/update    extra  launches";

    fn with_ratios(self) -> Self {
        let update = self.update_ms;
        let over = |sam: f64, plain: f64| (sam + update) / (plain + update);
        let [gradient, eighth] = [self.gradient_ms, self.eighth_ms].map(Option::unwrap_or_default);
        Self {
            overhead: Some(over(2.0 * gradient + self.fused_ms, 2.0 * gradient)),
            on_the_whole: Some(over(2.0 * gradient + self.fused_ms, gradient)),
            on_an_eighth: Some(over(gradient + eighth + self.fused_ms, gradient)),
            ..self
        }
    }
}

impl core::fmt::Display for Row {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let figure = |value: Option<f64>, digits: usize| match value {
            Some(value) => format!("{value:.digits$}"),
            None => "-".to_string(),
        };
        let bytes = 4 * self.parameters;
        let extra = (self.extra_bytes).map(|extra| 100.0 * extra as f64 / bytes as f64);
        write!(
            f,
            "{:<11} {:>11} {:>9} {:>9} {:>9.3} {:>9.3} {:>9.3} {:>9} {:>10} {:>14} {:>13} {:>15.2} {:>12} {:>13.2} {:>6} % {:>9}",
            self.model,
            self.parameters,
            figure(self.gradient_ms, 3),
            figure(self.eighth_ms, 3),
            self.portable_ms,
            self.fused_ms,
            self.update_ms,
            figure(self.floor_ms, 3),
            figure(self.overhead, 3),
            figure(self.on_the_whole, 3),
            figure(self.on_an_eighth, 3),
            self.portable_ms / self.fused_ms,
            figure(self.floor_ms.map(|floor| self.fused_ms / floor), 2),
            self.fused_ms / self.update_ms,
            figure(extra, 2),
            self.launches
                .map_or("-".to_string(), |launches| launches.to_string()),
        )
    }
}

/// Measures one of the [models](crate::models::NAMES) on a device of this name.
pub fn costs(model: &str, name: &str, device: &Device, runs: usize) -> Row {
    let costs = Costs {
        model,
        name,
        device,
        runs,
    };
    with(model, device, costs)
}

struct Costs<'a> {
    model: &'a str,
    name: &'a str,
    device: &'a Device,
    runs: usize,
}

impl Measurement for Costs<'_> {
    type Output = Row;

    fn of<M: Module>(self, module: M, loss: impl Fn(&M, AscentPart) -> Tensor<1>) -> Row {
        let gradients =
            |module: &M, part| GradientsParams::from_grads(loss(module, part).backward(), module);
        let Self {
            model,
            name,
            device,
            runs,
        } = self;
        measure(model, name, module, gradients, device, runs).with_ratios()
    }
}

/// Measures a ResNet-50's parameters with random gradients.
pub fn resnet50(name: &str, device: &Device, runs: usize) -> Row {
    let module = ResNet50::new(device);
    let gradients = |module: &ResNet50, _| module.gradients();
    let row = measure("resnet50", name, module, gradients, device, runs);
    Row {
        gradient_ms: None,
        eighth_ms: None,
        ..row
    }
}

/// Takes turns: each round measures each figure once, so that all see the same machine.
fn measure<M: Module>(
    model: &str,
    name: &str,
    mut module: M,
    gradients: impl Fn(&M, AscentPart) -> GradientsParams,
    device: &Device,
    runs: usize,
) -> Row {
    let parameters = module.num_params();
    let whole = SamConfig::new().ascent_part();
    let eighth = SamConfig::new().with_ascent_fraction(0.125).ascent_part();
    let sam = SamConfig::new().with_rho(RHO);
    let mut optim = SgdConfig::new().init();
    let on_cpu = matches!(name, "flex" | "ndarray");
    let mut floor = match on_cpu {
        true => Floor::host(parameters),
        false => Floor::gpu(parameters, device),
    };
    let mut times = Times::default();

    for round in 0..WARM_UP + runs {
        let timed = |f: &mut dyn FnMut()| -> Duration {
            device.sync().expect("the device works");
            let start = Instant::now();
            f();
            device.sync().expect("the device works");
            start.elapsed()
        };
        let mut grads = None;
        let gradient = timed(&mut || grads = Some(gradients(&module, whole)));
        let on_an_eighth = timed(&mut || drop(gradients(&module, eighth)));

        let mut for_portable = grads.take();
        let mut kept = Vec::new();
        let portable = timed(&mut || {
            kept.push(perturb_portably(
                &module,
                for_portable.take().expect("once"),
            ));
        });
        drop(kept);

        let mut grads = Some(gradients(&module, whole));
        let mut at_w = Some(module);
        let mut climbed = None;
        let fused = timed(&mut || {
            let (module, grads) = (at_w.take(), grads.take());
            climbed = Some(sam.climb(module.expect("once"), grads.expect("once")));
        });

        let climbed = climbed.expect("the climbed module");
        let mut grads = Some(gradients(&climbed, whole));
        let mut updated = None;
        let mut climbed = Some(climbed);
        let back = timed(&mut || updated = climbed.take().map(Climbed::step_back));
        let update = timed(&mut || {
            let module = updated.take().expect("once");
            updated = Some(optim.step(1e-6, module, grads.take().expect("once")));
        });
        module = updated.expect("the updated module");

        floor.run(round >= WARM_UP);
        if round >= WARM_UP {
            times.gradient.push(gradient);
            times.eighth.push(on_an_eighth);
            times.portable.push(portable);
            times.fused.push(fused);
            times.back.push(back);
            times.update.push(update);
        }
    }

    let grads = gradients(&module, whole);
    device.sync().expect("the device works");
    device.memory_cleanup();
    let memory = || match on_cpu {
        true => Some(allocated()),
        false => reserved(device),
    };
    let (bytes_before, launches_before) = (memory(), launches());
    let climbed = sam.climb(module, grads);
    device.sync().expect("the device works");
    let extra_bytes = (memory().zip(bytes_before)).map(|(after, before)| after - before);
    let launches = launches() - launches_before;
    drop(climbed);

    Row {
        model: model.to_string(),
        device: name.to_string(),
        gradient_ms: median_ms(times.gradient),
        eighth_ms: median_ms(times.eighth),
        portable_ms: median_ms(times.portable).unwrap_or(f64::NAN),
        fused_ms: median_ms(times.fused).unwrap_or(f64::NAN),
        back_ms: median_ms(times.back).unwrap_or(f64::NAN),
        update_ms: median_ms(times.update).unwrap_or(f64::NAN),
        floor_ms: floor.median_ms(),
        overhead: None,
        on_the_whole: None,
        on_an_eighth: None,
        launches: (!on_cpu).then_some(launches),
        extra_bytes,
        parameters,
    }
}

/// The bytes that the device's allocator holds for its pools.
fn reserved(device: &Device) -> Option<usize> {
    let usage = device.clone().inner().memory_pool_usage()?;
    Some(usage.bytes_reserved as usize)
}

/// The compute shaders that burn-sam has launched so far.
fn launches() -> usize {
    #[cfg(feature = "wgpu")]
    return burn_sam_kernels::internals::launches();
    #[cfg(not(feature = "wgpu"))]
    0
}

#[derive(Default)]
struct Times {
    gradient: Vec<Duration>,
    eighth: Vec<Duration>,
    portable: Vec<Duration>,
    fused: Vec<Duration>,
    back: Vec<Duration>,
    update: Vec<Duration>,
}

/// The perturbation in plain tensor operations. What it makes is returned, and so not freed on the
/// clock.
fn perturb_portably<M: Module>(module: &M, grads: GradientsParams) -> GradientsParams {
    struct Norm<'a>(&'a GradientsParams, Vec<Tensor<1>>);

    impl ModuleVisitor for Norm<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(grad) = self.0.get::<D>(param.id) {
                self.1
                    .push(sum_of_squares(&param.val().inner(), grad, None));
            }
        }
    }

    struct Ascent(GradientsParams, GradientsParams, Scale);

    impl ModuleVisitor for Ascent {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(grad) = self.0.remove::<D>(param.id) {
                let climbed = perturb(param.val().inner(), grad, &self.2, RHO, None);
                self.1.register(param.id, climbed);
            }
        }
    }

    let mut norm = Norm(&grads, Vec::new());
    module.visit(&mut norm);
    let scale = Scale::new(total(norm.1).expect("there are parameters"), 1e-12, None);
    let mut ascent = Ascent(grads, GradientsParams::new(), scale);
    module.visit(&mut ascent);
    ascent.1
}
