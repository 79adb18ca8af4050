use std::path::Path;

use burn::module::ParamGroup;
use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{Adam, AdamConfig, AdamW, AdamWConfig, Sgd, SgdConfig};
use burn_sam::{Ascent, Descent, Radius, SamConfig};
use serde::Deserialize;
use serde_json::Value;

/// A reference trajectory, as its file has it.
#[derive(Clone, Debug, Deserialize)]
pub struct Case {
    /// What the case is called.
    pub name: String,
    /// The library and version that produced the figures.
    pub source: String,
    pub(crate) model: Model,
    base: BaseSpec,
    method: MethodSpec,
    pub(crate) init: Vec<Layer>,
    pub(crate) batches: Vec<Batch>,
    /// The figures of each step.
    pub steps: Vec<Step>,
    /// The weights after the last step.
    #[serde(rename = "final")]
    pub last: Vec<Layer>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Model {
    pub(crate) sizes: Vec<usize>,
    pub(crate) activation: Activation,
    pub(crate) loss: Loss,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Activation {
    Tanh,
    Relu,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Loss {
    Mse,
    CrossEntropy,
}

/// The weights of a linear layer.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layer {
    /// `[d_input, d_output]`.
    pub weight: Vec<Vec<f64>>,
    /// `[d_output]`.
    pub bias: Vec<f64>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Batch {
    pub(crate) x: Vec<Vec<f64>>,
    pub(crate) y: Targets,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Targets {
    Classes(Vec<i64>),
    Values(Vec<Vec<f64>>),
}

/// The figures of one step.
#[derive(Clone, Debug, Deserialize)]
pub struct Step {
    /// The loss at w, where the method takes it.
    pub loss: Option<f64>,
    /// The gradient norm |g| at w, where the method takes it.
    pub grad_norm: Option<f64>,
    /// The loss at w + e(w).
    pub loss_perturbed: f64,
    /// The gradient norm at w + e(w), where the reference has it.
    pub grad_norm_perturbed: Option<f64>,
    /// Forward-backward passes taken.
    pub passes: usize,
}

/// Why a case cannot be replayed.
#[derive(Debug)]
pub enum CaseError {
    /// It asks for something that burn-sam or this program does not do (yet).
    Unsupported(String),
    /// It is not a reference trajectory.
    Invalid(String),
}

impl core::fmt::Display for CaseError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Unsupported(what) => write!(f, "not supported: {what}"),
            Self::Invalid(why) => write!(f, "not a reference trajectory: {why}"),
        }
    }
}

impl core::error::Error for CaseError {}

pub(crate) enum Base {
    Sgd(Sgd),
    Adam(Adam),
    AdamW(AdamW),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase", deny_unknown_fields)]
enum BaseSpec {
    Sgd {
        lr: f64,
        #[serde(default)]
        momentum: f64,
        #[serde(default)]
        nesterov: bool,
        #[serde(default)]
        weight_decay: f32,
    },
    Adam {
        lr: f64,
        betas: [f32; 2],
        eps: f32,
    },
    AdamW {
        lr: f64,
        betas: [f32; 2],
        eps: f32,
        weight_decay: f32,
    },
}

#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase", deny_unknown_fields)]
enum MethodSpec {
    Sam {
        rho: Option<f64>,
        groups: Option<Vec<f64>>,
        #[serde(default = "one")]
        ascent_steps: usize,
    },
    Asam {
        rho: Option<f64>,
        groups: Option<Vec<f64>>,
    },
    Friendly {
        rho: f64,
        sigma: f64,
        lmbda: f64,
    },
    Gsam {
        rho: f64,
        alpha: f64,
    },
    Msam {
        rho: f64,
    },
    Vasso {
        rho: f64,
        theta: f64,
    },
    #[serde(rename = "le_sam")]
    LeSam {
        rho: f64,
        sigma: f64,
    },
    Wsam {
        rho: f64,
        gamma: f64,
        decouple: bool,
    },
}

fn one() -> usize {
    1
}

impl Case {
    /// Reads and checks a case.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, is not a reference trajectory, or asks for a method or a base
    /// optimizer that is not known.
    pub fn load(file: impl AsRef<Path>) -> Result<Self, CaseError> {
        let invalid = |err: &dyn core::fmt::Display| CaseError::Invalid(err.to_string());
        let text = std::fs::read_to_string(file).map_err(|err| invalid(&err))?;
        let value: Value = serde_json::from_str(&text).map_err(|err| invalid(&err))?;
        // First, because the steps of other methods have other figures.
        for key in ["base", "method"] {
            if !value[key]["name"].is_string() {
                return Err(CaseError::Invalid(format!("it names no {key}")));
            }
        }
        spec::<BaseSpec>(&value["base"], "base optimizer")?;
        spec::<MethodSpec>(&value["method"], "method")?;

        let case: Self = serde_json::from_value(value).map_err(|err| invalid(&err))?;
        case.check()?;
        Ok(case)
    }

    fn check(&self) -> Result<(), CaseError> {
        let sizes = &self.model.sizes;
        let fits = |layers: &[Layer]| {
            layers.len() + 1 == sizes.len()
                && layers.iter().zip(sizes.windows(2)).all(|(layer, size)| {
                    layer.weight.len() == size[0]
                        && layer.weight.iter().all(|row| row.len() == size[1])
                        && layer.bias.len() == size[1]
                })
        };
        let complaint = if self.steps.is_empty() || self.batches.is_empty() {
            "it has no steps or no batches"
        } else if !fits(&self.init) || !fits(&self.last) {
            "init or final does not have the sizes of the model"
        } else if (self.batches.iter())
            .any(|batch| batch.x.is_empty() || batch.x.iter().any(|row| row.len() != sizes[0]))
        {
            "a batch does not have the model's inputs"
        } else if (self.batches.iter()).any(|batch| !batch.y.fit(self, batch.x.len())) {
            "a batch's targets do not fit the loss or the model's outputs"
        } else {
            return self.sam().map(|_| ());
        };
        Err(CaseError::Invalid(complaint.to_string()))
    }

    /// The base optimizer.
    pub(crate) fn base(&self) -> Base {
        match &self.base {
            BaseSpec::Sgd {
                momentum,
                nesterov,
                weight_decay,
                ..
            } => {
                let momentum = (*momentum != 0.0).then(|| {
                    MomentumConfig::new()
                        .with_momentum(*momentum)
                        .with_dampening(0.0)
                        .with_nesterov(*nesterov)
                });
                let decay = (*weight_decay != 0.0).then(|| WeightDecayConfig::new(*weight_decay));
                let config = SgdConfig::new()
                    .with_momentum(momentum)
                    .with_weight_decay(decay);
                Base::Sgd(config.build())
            }
            BaseSpec::Adam { betas, eps, .. } => {
                let config = AdamConfig::new()
                    .with_beta_1(betas[0])
                    .with_beta_2(betas[1])
                    .with_epsilon(*eps);
                Base::Adam(config.build())
            }
            BaseSpec::AdamW {
                betas,
                eps,
                weight_decay,
                ..
            } => {
                let config = AdamWConfig::new()
                    .with_beta_1(betas[0])
                    .with_beta_2(betas[1])
                    .with_epsilon(*eps)
                    .with_weight_decay(*weight_decay);
                Base::AdamW(config.build())
            }
        }
    }

    /// The base optimizer's learning rate.
    pub(crate) fn learning_rate(&self) -> f64 {
        match self.base {
            BaseSpec::Sgd { lr, .. } | BaseSpec::Adam { lr, .. } | BaseSpec::AdamW { lr, .. } => lr,
        }
    }

    /// Whether the base optimizer is Adam or AdamW, whose bias correction Burn computes in f32.
    pub fn has_adam_base(&self) -> bool {
        matches!(self.base, BaseSpec::Adam { .. } | BaseSpec::AdamW { .. })
    }

    /// The sharpness-aware method.
    pub(crate) fn sam(&self) -> Result<SamConfig, CaseError> {
        let out_of_range =
            |name: &str, value: f64| CaseError::Invalid(format!("the method has {name} {value}"));
        let config = SamConfig::new();
        let (rho, groups, config) = match self.method.clone() {
            MethodSpec::Sam {
                ascent_steps: 0, ..
            } => return Err(out_of_range("ascent_steps", 0.0)),
            MethodSpec::Sam {
                rho,
                groups,
                ascent_steps,
            } => (rho, groups, config.with_ascents(ascent_steps)),
            MethodSpec::Asam { rho, groups } => (rho, groups, config.with_adaptive(true)),
            MethodSpec::Friendly { sigma, .. } if !(sigma >= 0.0 && sigma.is_finite()) => {
                return Err(out_of_range("sigma", sigma));
            }
            MethodSpec::Friendly { lmbda, .. } if !(0.0..1.0).contains(&lmbda) => {
                return Err(out_of_range("lmbda", lmbda));
            }
            MethodSpec::Friendly { rho, sigma, lmbda } => {
                let lambda = lmbda;
                let ascent = Ascent::Friendly { sigma, lambda };
                (Some(rho), None, config.with_ascent(ascent))
            }
            MethodSpec::Msam { rho } => (Some(rho), None, config.with_ascent(Ascent::Msam)),
            MethodSpec::Vasso { theta, .. } if !(theta > 0.0 && theta <= 1.0) => {
                return Err(out_of_range("theta", theta));
            }
            MethodSpec::Vasso { rho, theta } => {
                (Some(rho), None, config.with_ascent(Ascent::Vasso { theta }))
            }
            MethodSpec::LeSam { sigma, .. } if !(sigma > 0.0 && sigma.is_finite()) => {
                return Err(out_of_range("sigma", sigma));
            }
            MethodSpec::LeSam { rho, sigma } => {
                let law = Radius::LeSam {
                    sigma,
                    anneal: None,
                };
                (Some(rho), None, config.with_rho(rho).with_radius(law))
            }
            MethodSpec::Gsam { alpha, .. } if !(alpha >= 0.0 && alpha.is_finite()) => {
                return Err(out_of_range("alpha", alpha));
            }
            MethodSpec::Gsam { rho, alpha } => {
                let descent = Descent::Gsam { alpha };
                (Some(rho), None, config.with_descent(descent))
            }
            MethodSpec::Wsam { gamma, .. } if !(0.0..1.0).contains(&gamma) => {
                return Err(out_of_range("gamma", gamma));
            }
            MethodSpec::Wsam {
                rho,
                gamma,
                decouple: decoupled,
            } => {
                let descent = Descent::Wsam { gamma, decoupled };
                (Some(rho), None, config.with_descent(descent))
            }
        };
        let rhos = match (rho, groups) {
            (Some(rho), None) => vec![rho; self.init.len()],
            (None, Some(groups)) if groups.len() == self.init.len() => groups,
            _ => {
                return Err(CaseError::Invalid(
                    "the method has neither a rho nor a rho for each layer".to_string(),
                ));
            }
        };
        if let Some(rho) = rhos.iter().find(|rho| !(rho.is_finite() && **rho >= 0.0)) {
            return Err(CaseError::Invalid(format!("the method has a rho of {rho}")));
        }
        Ok(
            (rhos.into_iter().enumerate()).fold(config, |config, (layer, rho)| {
                let group = ParamGroup::from_regex(format!(r"^layers\.{layer}\."));
                config.with_group(group.expect("a valid pattern"), rho)
            }),
        )
    }
}

impl Targets {
    fn fit(&self, case: &Case, samples: usize) -> bool {
        let outputs = case.model.sizes[case.model.sizes.len() - 1];
        match (self, case.model.loss) {
            (Self::Classes(y), Loss::CrossEntropy) => {
                y.len() == samples && y.iter().all(|y| (0..outputs as i64).contains(y))
            }
            (Self::Values(y), Loss::Mse) => {
                y.len() == samples && y.iter().all(|row| row.len() == outputs)
            }
            _ => false,
        }
    }
}

/// Reads a base optimizer or a method, naming what it is that is not known.
fn spec<S: serde::de::DeserializeOwned>(value: &Value, what: &str) -> Result<S, CaseError> {
    serde_json::from_value(value.clone())
        .map_err(|err| CaseError::Unsupported(format!("{what} {}: {err}", value["name"])))
}
