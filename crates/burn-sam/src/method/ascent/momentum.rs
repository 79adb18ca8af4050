//! MSAM, equation 4 of arXiv 2401.12033 in its authors' code's sign: along the last update, for no pass.
//!
//! The weights before the update are kept, not those that the next pass is to climb to: whatever becomes of the model
//! between two steps, the next pass starts from the w that it is given.

use burn::tensor::Tensor;

use super::way::{Direction, From, OnePass, Way};
use crate::method::keep::{Former, How, Keep};

pub(super) struct Momentum;

impl Way for Momentum {
    fn keeps(&self) -> Option<Keep> {
        Some(Keep {
            former: Some(Former {
                name: "climbed",
                turn: before_climbed,
            }),
            ..Keep::new("before", How::Before)
        })
    }

    fn one_pass(&self) -> Option<OnePass> {
        Some(OnePass {
            file: "msam",
            name: "MSAM",
            instead: "climbs along the last update",
            starts_level: true,
        })
    }

    fn direction(&self, from: From<'_>) -> Direction {
        Direction::UpdateFrom(from.kept.unwrap_or_default())
    }
}

/// Of weights from which the update has the direction of the climbed ones that were kept in their place.
fn before_climbed(climbed: Tensor<1>, weight: Tensor<1>) -> Tensor<1> {
    weight * 2.0 - climbed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::method::tests::{values, vector};
    use burn_sam_kernels::Vector;

    #[test]
    fn an_older_record_has_the_same_direction() {
        let (climbed, weight) = (vector(&[1.5, 3.0]), vector(&[1.0, 2.0]));
        let [climbed, weight] =
            [climbed, weight].map(|vector| vector.into_iter().next().unwrap().flat());
        let before = before_climbed(climbed, weight.clone());
        let update: Vec<f64> = (weight - before).into_data().iter().collect();
        assert_eq!(update, [0.5, 1.0]);
    }

    #[test]
    fn it_climbs_from_where_the_weights_were() {
        let from = |kept| From {
            gradient: Default::default(),
            kept,
            noise: &Vector::new,
        };
        let Direction::UpdateFrom(before) = Momentum.direction(from(Some(vector(&[0.5, 2.5]))))
        else {
            panic!("an update")
        };
        assert_eq!(values(&before), [0.5, 2.5]);
        let Direction::UpdateFrom(before) = Momentum.direction(from(None)) else {
            panic!("an update")
        };
        assert!(before.is_empty());
    }
}
