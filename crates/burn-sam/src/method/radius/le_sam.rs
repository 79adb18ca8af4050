//! LE-SAM, arXiv 2605.10183: the rise of the loss to first order is fixed, in the place of the radius,
//!
//! ```text
//! rho_t = min(sigma / |g|, rho)
//! ```

use super::law::{At, ByLength, Law, Needs};
use crate::method::check;

pub(super) struct LeSam {
    pub(super) sigma: f64,
    pub(super) anneal: Option<[usize; 2]>,
}

impl LeSam {
    /// Sigma after so many steps: it goes to 0 by half a cosine.
    fn sigma(&self, steps: usize) -> f64 {
        let Some([from, until]) = self.anneal else {
            return self.sigma;
        };
        let way = steps.saturating_sub(from) as f64 / (until - from) as f64;
        let part = 0.5 * (1.0 + (core::f64::consts::PI * way.min(1.0)).cos());
        self.sigma * part
    }
}

impl Law for LeSam {
    fn check(&self, rho: f64) -> Result<(), String> {
        check::above_zero("radius.le_sam.sigma", self.sigma)?;
        if let Some([from, until]) = self.anneal
            && from >= until
        {
            return Err(format!(
                "SamConfig: radius.le_sam.anneal is from {from} to {until}, but must be from a step to a later one"
            ));
        }
        match rho == 0.0 {
            true => Err(
                "SamConfig: rho is 0, but is the most that radius le_sam climbs: it must be above 0"
                    .to_string(),
            ),
            false => Ok(()),
        }
    }

    fn needs(&self) -> Needs {
        Needs {
            count: self.anneal.is_some(),
            ..Needs::default()
        }
    }

    fn by_length(&self, at: At) -> Option<ByLength> {
        let sigma = self.sigma(at.since_start) / at.rho;
        Some(Box::new(move |squared_norm| {
            (sigma / squared_norm.sqrt()).clamp(0.0, 1.0)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::method::tests::PLACES;

    #[test]
    fn a_long_gradient_climbs_less() {
        let at = |since_start| At {
            rho: 2.0,
            since_start,
            lr: None,
        };
        let rho = |anneal, steps, squared_norm| {
            let law = LeSam { sigma: 3.0, anneal };
            let factor = law.by_length(at(steps)).unwrap();
            let [on_host, on_device] = PLACES.map(|number| factor(&number(squared_norm)).read());
            assert!((on_host - on_device).abs() < 1e-15);
            2.0 * on_host
        };
        assert_eq!(rho(None, 9, 36.0), 0.5);
        // No farther than rho, which is what a gradient of nothing gets.
        assert_eq!([rho(None, 0, 1.0), rho(None, 0, 0.0)], [2.0, 2.0]);
        let anneal = Some([10, 20]);
        for (steps, expected) in [(3, 0.5), (10, 0.5), (15, 0.25), (20, 0.0), (99, 0.0)] {
            assert!((rho(anneal, steps, 36.0) - expected).abs() < 1e-12);
        }
    }
}
