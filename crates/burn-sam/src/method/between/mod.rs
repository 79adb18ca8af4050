//! What the steps do that do not climb: a way a file.

mod looksam;
mod plain;
mod way;

use serde::{Deserialize, Serialize};

use way::Way;

/// What the steps do that do not climb, if not every one does.
///
/// From [`SamConfig::with_between`](crate::SamConfig::with_between). In a file, it is `"plain"` or
/// `{"looksam": {"alpha": 0.5}}`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Between {
    /// They are the base optimizer's: one pass, at w.
    Plain,
    /// LookSAM: one pass, at w, whose gradients g get the direction in which the last climbing step's second
    /// gradients h differed from its first ones, g_0,
    ///
    /// ```text
    /// g + alpha |g| / |v| v,    v = h - <g_0, h> / |g_0|² g_0
    /// ```
    ///
    /// with the norms over the whole model. v is kept from step to step: one copy of the weights. Where a
    /// norm is zero or not finite, it is g.
    ///
    /// [Towards Efficient and Scalable Sharpness-Aware Minimization](https://arxiv.org/abs/2203.02714) (Liu
    /// et al.), algorithm 1.
    Looksam {
        /// How much of v, 0 or more, in units of |g|: 0 is [`Plain`](Self::Plain).
        alpha: f64,
    },
}

impl Between {
    /// What it is.
    pub(crate) fn way(self) -> Box<dyn Way> {
        match self {
            Self::Plain => Box::new(plain::Plain),
            Self::Looksam { alpha } => Box::new(looksam::Looksam { alpha }),
        }
    }
}
