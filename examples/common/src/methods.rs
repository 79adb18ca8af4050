//! The methods by name.

use burn_sam::{Ascent, Between, Descent, Radius, SamConfig};
use clap::ValueEnum;

/// The methods, each with one obvious way to ask for it, as a command-line option.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Plain
    Sgd,
    /// Two passes a step
    Sam,
    /// Climbs along the last update: one pass
    Msam,
    /// Every fifth step in full
    Looksam,
    /// Every fifth step climbs, plain steps between
    Fifth,
    /// The ascent on an eighth of the batch
    Eighth,
    /// Adaptive, in its authors' form
    Asam,
    /// Friendly: without the gradients' average
    Friendly,
    /// Along a running mean of the gradients
    Vasso,
    /// The rise of the loss to first order is given, in the place of rho
    Lesam,
    /// Anywhere: one pass
    Random,
    /// Less of what is orthogonal to the second gradient
    Gsam,
    /// The loss and its sharpness, weighted
    Wsam,
    /// Two ascents a step
    Twice,
    /// Rho raised over the first twelfth
    Raised,
    /// The descent no longer than the gradient at w
    Limited,
    /// Both
    Both,
    /// Rho sets itself, and the descent is limited: one pass
    Auto,
    /// The same at two passes
    Autotwopass,
}

impl Method {
    /// With a radius, and so many steps to raise it; SGD, or whatever the base is, has none.
    pub fn config(self, rho: f64, steps: usize) -> Option<SamConfig> {
        let raised = Radius::Raised { steps };
        let config = match self {
            Self::Sgd => return None,
            Self::Sam => SamConfig::new(),
            Self::Msam => SamConfig::msam(),
            Self::Looksam => SamConfig::looksam(),
            Self::Fifth => SamConfig::looksam().with_between(Between::Plain),
            Self::Eighth => SamConfig::new().with_ascent_fraction(0.125),
            Self::Asam => SamConfig::asam(),
            Self::Friendly => SamConfig::friendly(),
            Self::Vasso => SamConfig::new().with_ascent(Ascent::Vasso { theta: 0.9 }),
            Self::Lesam => {
                // What is chosen is sigma; no climb is as long as 3, the rule's farthest.
                let law = Radius::LeSam {
                    sigma: rho,
                    anneal: None,
                };
                return Some(SamConfig::new().with_rho(3.0).with_radius(law));
            }
            Self::Random => SamConfig::new().with_ascent(Ascent::Random),
            Self::Gsam => SamConfig::new().with_descent(Descent::Gsam { alpha: 0.1 }),
            Self::Wsam => SamConfig::new().with_descent(Descent::Wsam {
                gamma: 0.6,
                decoupled: false,
            }),
            Self::Twice => SamConfig::new().with_ascents(2),
            Self::Raised => SamConfig::new().with_radius(raised),
            Self::Limited => SamConfig::new().with_descent(Descent::Limited),
            Self::Both => {
                let limited = SamConfig::new().with_descent(Descent::Limited);
                limited.with_radius(raised)
            }
            Self::Auto => return Some(SamConfig::auto()),
            Self::Autotwopass => return Some(SamConfig::auto_two_pass()),
        };
        Some(config.with_rho(rho))
    }

    /// Whether it has a radius to choose.
    pub fn has_a_radius(self) -> bool {
        !matches!(self, Self::Sgd | Self::Auto | Self::Autotwopass)
    }

    /// What its radii are measured in, over SAM's.
    pub fn scale(self) -> f64 {
        match self {
            Self::Msam | Self::Asam | Self::Random => 5.0,
            _ => 1.0,
        }
    }

    /// A step's, on average, of the whole batch.
    pub fn passes(self) -> f64 {
        match self {
            Self::Sgd | Self::Msam | Self::Random | Self::Auto => 1.0,
            Self::Looksam | Self::Fifth => 1.2,
            Self::Eighth => 1.125,
            Self::Twice => 3.0,
            _ => 2.0,
        }
    }

    /// For readers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sgd => "SGD",
            Self::Sam => "SAM",
            Self::Msam => "MSAM",
            Self::Looksam => "LookSAM",
            Self::Fifth => "SAM, every fifth step",
            Self::Eighth => "SAM, ascent on an eighth",
            Self::Asam => "ASAM",
            Self::Friendly => "F-SAM",
            Self::Vasso => "VaSSO",
            Self::Lesam => "LE-SAM",
            Self::Random => "random perturbation",
            Self::Gsam => "GSAM",
            Self::Wsam => "WSAM",
            Self::Twice => "SAM, two ascents",
            Self::Raised => "SAM, rho raised",
            Self::Limited => "SAM, limited",
            Self::Both => "SAM, raised and limited",
            Self::Auto => "rule, one pass",
            Self::Autotwopass => "rule, two passes",
        }
    }
}
