//! GSAM's law, section 4 of arXiv 2203.08065: rho follows the learning rate,
//!
//! ```text
//! rho_t = rho_min + (rho - rho_min) (lr - lr_min) / (lr_max - lr_min)
//! ```

use super::law::{At, Law, Needs};
use crate::method::check;

pub(super) struct LearningRate {
    pub(super) rho_min: f64,
    pub(super) lr_min: f64,
    pub(super) lr_max: f64,
}

impl Law for LearningRate {
    fn check(&self, rho: f64) -> Result<(), String> {
        let Self {
            rho_min,
            lr_min,
            lr_max,
        } = *self;
        check::size("radius.learning_rate.rho_min", rho_min)?;
        check::size("radius.learning_rate.lr_min", lr_min)?;
        check::size("radius.learning_rate.lr_max", lr_max)?;
        if lr_min >= lr_max {
            return Err(format!(
                "SamConfig: radius.learning_rate.lr_min is {lr_min}, but must be below lr_max, which is {lr_max}"
            ));
        }
        match rho_min <= rho {
            true => Ok(()),
            false => Err(format!(
                "SamConfig: radius.learning_rate.rho_min is {rho_min}, but must be at most rho, which is {rho}"
            )),
        }
    }

    fn needs(&self) -> Needs {
        Needs {
            lr: true,
            ..Needs::default()
        }
    }

    fn factor(&self, at: At) -> f64 {
        let least = match at.rho == 0.0 {
            true => 0.0,
            false => self.rho_min / at.rho,
        };
        let part = at.lr.map_or(0.0, |lr| {
            ((lr - self.lr_min) / (self.lr_max - self.lr_min)).clamp(0.0, 1.0)
        });
        least + (1.0 - least) * part
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_from_the_least_to_rho() {
        let law = LearningRate {
            rho_min: 0.1,
            lr_min: 1.0,
            lr_max: 3.0,
        };
        let rho = |lr| {
            let at = At {
                rho: 0.5,
                since_start: 0,
                lr,
            };
            0.5 * law.factor(at)
        };
        for (lr, expected) in [
            (None, 0.1),
            (Some(1.0), 0.1),
            (Some(2.0), 0.3),
            (Some(9.0), 0.5),
        ] {
            assert!((rho(lr) - expected).abs() < 1e-12);
        }
    }
}
