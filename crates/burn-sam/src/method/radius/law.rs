//! What a law for rho is made of.

use burn::tensor::Tensor;
use burn_sam_kernels::Number;

/// What a law for rho is.
pub(crate) trait Law {
    /// What is out of range, with this rho.
    fn check(&self, _rho: f64) -> Result<(), String> {
        Ok(())
    }

    /// What it has to know.
    fn needs(&self) -> Needs {
        Needs::default()
    }

    /// Rho over the configured one, as far as the host knows it.
    fn factor(&self, _at: At) -> f64 {
        1.0
    }

    /// Whether a step stays at w, of a method that otherwise never takes a gradient there.
    fn looks(&self, _step: usize) -> bool {
        false
    }

    /// What a climb's rho is over the configured one, of the squared norm of the way, where it depends on that.
    fn by_length(&self, _at: At) -> Option<ByLength> {
        None
    }

    /// What is kept on the device from step to step, at the start: rho first. What is not known yet is NaN.
    fn start(&self, _rho: f64) -> Vec<f64> {
        Vec::new()
    }

    /// How many of these older records have, the first ones.
    fn former(&self) -> usize {
        self.start(1.0).len()
    }

    /// A step's, so that they add up over micro-batches and devices.
    fn report(&self, _state: &Tensor<1>, _seen: Seen) -> Option<Tensor<1>> {
        None
    }

    /// The state after a step.
    fn next(&self, state: Tensor<1>, _report: Tensor<1>, _pace: Pace) -> Tensor<1> {
        state
    }

    /// What there is to say of a state, should it be known on the host.
    fn remark(&self, _state: &[f64]) -> Option<&'static str> {
        None
    }
}

/// What a law has to know of a training.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Needs {
    /// How many steps there have been.
    pub(crate) count: bool,
    /// The learning rate.
    pub(crate) lr: bool,
    /// The losses.
    pub(crate) losses: bool,
}

/// What a step has seen.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// The losses at w and at w + e(w).
    pub(crate) losses: [Number; 2],
    /// |h| / |g|, if both are known.
    pub(crate) ratio: Option<Number>,
}

/// Where a training is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At {
    /// The configured one.
    pub(crate) rho: f64,
    /// Steps after the first one that may climb.
    pub(crate) since_start: usize,
    /// Of the update before.
    pub(crate) lr: Option<f64>,
}

/// How a training climbs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Whether each step does.
    pub(crate) every_step: bool,
    /// Whether rho is relative to each weight.
    pub(crate) adaptive: bool,
    /// Whether a step takes no gradient at w, so that the loss there is an estimate.
    pub(crate) one_pass: bool,
}

/// A number made of a squared norm.
pub(crate) type ByLength = Box<dyn Fn(&Number) -> Number>;

/// What all radii are multiplied by at a step: what the host is sure to know, and what it may not.
pub(crate) struct Factor {
    pub(crate) host: f64,
    pub(crate) device: Option<Number>,
    pub(crate) by_length: Option<ByLength>,
}

impl Factor {
    /// Of a method that keeps nothing.
    pub(crate) const ONE: Self = Self::host(1.0);

    pub(crate) const fn host(host: f64) -> Self {
        Self {
            host,
            device: None,
            by_length: None,
        }
    }

    /// What the host may not know, of a climb whose way has this squared norm.
    pub(crate) fn of(&self, squared_norm: &Number) -> Option<Number> {
        let by_length = self.by_length.as_ref().map(|factor| factor(squared_norm));
        match (by_length, self.device.clone()) {
            (Some(one), Some(other)) => Some(one * other),
            (one, other) => one.or(other),
        }
    }
}
