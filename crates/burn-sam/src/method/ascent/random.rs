//! Random weight perturbation, as in the code of arXiv 2211.11489: no direction at all. Each weight's noise is normal, in
//! proportion to the norm of its filter (of its parameter, where that has none); here the whole is rho long.

use super::way::{Direction, From, OnePass, Way};

pub(super) struct Random;

impl Way for Random {
    fn one_pass(&self) -> Option<OnePass> {
        Some(OnePass {
            file: "random",
            name: "random perturbation",
            instead: "goes anywhere",
            starts_level: false,
        })
    }

    fn direction(&self, from: From<'_>) -> Direction {
        Direction::Along((from.noise)())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::method::tests::{values, vector};

    #[test]
    fn it_goes_along_the_noise() {
        let from = From {
            gradient: Default::default(),
            kept: None,
            noise: &|| vector(&[3.0, -1.0]),
        };
        let Direction::Along(d) = Random.direction(from) else {
            panic!("along the noise")
        };
        assert_eq!(values(&d), [3.0, -1.0]);
        assert!(Random.one_pass().is_some() && Random.keeps().is_none());
    }
}
