//! The rule, this library's own: each step climbs until the loss rises by so much of what there is to lose, or of what
//! has been learned, whichever is less,
//!
//! ```text
//! h   = min(L, max(L_0 - L, L_0 / 100))
//! q   = (L' - L) / (rise h)
//! rho <- rho exp(-0.1 clip(ln(q) / 2, -1, 1))
//! ```
//!
//! with running means L and L' of the losses at w and at w + e(w), and the first loss L_0.

use burn::tensor::Tensor;

use super::law::{Law, Needs, Pace};
use crate::method::check;
use crate::method::scalar::{beside, known_or};

pub(super) struct Rule {
    pub(super) rise: f64,
}

/// Rho, L, L' and L_0, which is below 0 once a loss was.
const STATE: usize = 4;
/// Sums of the losses at w and at w + e(w), and the numbers of these, of outliers, and of losses below 0.
const REPORT: usize = 5;

impl Law for Rule {
    fn check(&self, rho: f64) -> Result<(), String> {
        check::above_zero("radius.rule.rise", self.rise)?;
        match rho == 0.0 {
            true => Err(
                "SamConfig: rho is 0, but radius rule starts from it: it must be above 0"
                    .to_string(),
            ),
            false => Ok(()),
        }
    }

    fn needs(&self) -> Needs {
        Needs {
            losses: true,
            ..Needs::default()
        }
    }

    fn start(&self, rho: f64) -> Vec<f64> {
        vec![rho, f64::NAN, f64::NAN, f64::NAN]
    }

    fn report(&self, state: &Tensor<1>, losses: [Tensor<1>; 2]) -> Option<Tensor<1>> {
        let [at_w, climbed] = losses.map(|loss| beside(loss, state).mean());
        let below_zero = climbed.clone().lower_elem(0.0);
        let first = known_or(part(state, 3), &at_w);
        let scale = known_or(part(state, 1), &at_w).max_pair(first.clone());
        let most = scale.clone() * 10.0;
        let climbed = (climbed.clone())
            .mask_where(climbed.is_finite().bool_not(), most.clone())
            .min_pair(most);

        let is_finite = at_w.clone().is_finite();
        // An estimate of the loss at w may be off.
        let negative = (at_w.clone().lower_elem(0.0)).bool_and(below_zero);
        let outlier = (at_w.clone().greater(scale * 3.0)).bool_and(is_finite.clone());
        // Without a first loss above 0 there is nothing to measure by.
        let unknown = (is_finite.bool_not())
            .bool_or(first.lower_equal_elem(0.0))
            .bool_or(negative.clone())
            .bool_or(outlier.clone());
        let one = at_w.ones_like();
        let flag = |flag| one.zeros_like().mask_fill(flag, 1.0);
        let seen = Tensor::cat(vec![at_w, climbed, one.clone()], 0);
        let seen = seen.mask_fill(unknown.expand([3]), 0.0);
        Some(Tensor::cat(vec![seen, flag(outlier), flag(negative)], 0))
    }

    fn next(&self, state: Tensor<1>, report: Tensor<1>, pace: Pace) -> Tensor<1> {
        let (decay, speed) = match pace.every_step {
            true => (0.9, 0.1),
            false => (0.7, 0.3),
        };
        let (least, most) = match (pace.adaptive, pace.one_pass) {
            (false, false) => (1e-4, 3.0),
            (true, false) => (1e-3, 30.0),
            (false, true) => (1e-4, 20.0),
            (true, true) => (1e-3, 200.0),
        };
        let report = beside(report, &state);
        let [of_w, of_climbed, count, outliers, negatives] =
            core::array::from_fn::<_, REPORT, _>(|index| part(&report, index));
        let [at_w, climbed] = [of_w, of_climbed].map(|sum| sum / count.clone());

        let first = known_or(part(&state, 3), &at_w);
        let mean = |index, new: &Tensor<1>| {
            let old = known_or(part(&state, index), new);
            old * decay + new.clone() * (1.0 - decay)
        };
        let (at_w, climbed) = (mean(1, &at_w), mean(2, &climbed));

        let scale = first.clone().abs();
        let learned = (first.clone() - at_w.clone()).max_pair(scale.clone() * 0.01);
        let h = (at_w.clone().min_pair(learned)).max_pair((scale * 1e-6).clamp_min(1e-30));
        let q = ((climbed.clone() - at_w.clone()) / (h * self.rise)).clamp(1e-3, 1e3);
        let rho = part(&state, 0) * (((q.log() * 0.5).clamp(-1.0, 1.0)) * -speed).exp();
        let next = Tensor::cat(vec![rho.clamp(least, most), at_w, climbed, first], 0);

        // An outlier is left out, but the next one is less of one: if all are, that is how the loss is now.
        let growth = outliers
            .ones_like()
            .mask_fill(outliers.greater_elem(0.0), 1.25);
        let unchanged = Tensor::cat(
            vec![
                part(&state, 0),
                part(&state, 1) * growth.clone(),
                part(&state, 2) * growth,
                part(&state, 3).mask_fill(negatives.greater_elem(0.0), -1.0),
            ],
            0,
        );
        next.mask_where(count.equal_elem(0.0).expand([STATE]), unchanged)
    }

    fn remark(&self, state: &[f64]) -> Option<&'static str> {
        (state[3] < 0.0).then_some(
            "radius rule: a loss below 0 was seen, and the rule can measure only a loss that is 0 at best: rho \
             stays where it is from now on. Choose another radius",
        )
    }
}

fn part(of: &Tensor<1>, index: usize) -> Tensor<1> {
    of.clone().narrow(0, index, 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::method::tests::{number, numbers};

    const PACE: Pace = Pace {
        every_step: true,
        adaptive: false,
        one_pass: false,
    };

    fn after(rule: &Rule, losses: &[[f64; 2]]) -> Vec<f64> {
        let mut state = numbers(&rule.start(0.5));
        for losses in losses {
            let report = rule.report(&state, losses.map(number)).unwrap();
            state = rule.next(state, report, PACE);
        }
        state.into_data().iter().collect()
    }

    #[test]
    fn rho_goes_down_where_the_loss_rises_more_than_it_should() {
        let rule = Rule { rise: 0.5 };
        // h = L_0 / 100 = 0.02, q = 0.1 / 0.01 = 10: as far as it goes.
        let state = after(&rule, &[[2.0, 2.1]]);
        assert!((state[0] - 0.5 * (-0.1f64).exp()).abs() < 1e-12);
        assert_eq!(state[1..], [2.0, 2.1, 2.0]);
        // L = 1.9, L' = 2.0, h = 0.1, q = 2.
        let state = after(&rule, &[[2.0, 2.1], [1.0, 1.1]]);
        let expected = 0.5 * (-0.1f64 - 0.05 * 2f64.ln()).exp();
        assert!(
            (state[0] - expected).abs() < 1e-12,
            "{} for {expected}",
            state[0]
        );
    }

    #[test]
    fn outliers_and_what_is_not_finite_are_left_out() {
        let rule = Rule { rise: 0.5 };
        let usual = after(&rule, &[[2.0, 2.1], [1.0, 1.1]]);
        for odd in [[f64::NAN, 1.0], [f64::INFINITY, 1.0]] {
            assert_eq!(after(&rule, &[[2.0, 2.1], [1.0, 1.1], odd]), usual);
        }
        let odd = after(&rule, &[[2.0, 2.1], [1.0, 1.1], [1e12, 1e12]]);
        assert_eq!([odd[0], odd[3]], [usual[0], usual[3]]);
        assert_eq!(odd[1], usual[1] * 1.25);
        // A rise that is none counts as 10 times the first loss.
        let over = after(&rule, &[[2.0, 2.1], [1.0, f64::NAN]]);
        assert!((over[2] - (0.9 * 2.1 + 0.1 * 20.0)).abs() < 1e-12);
    }

    #[test]
    fn a_loss_below_zero_ends_the_rule() {
        let rule = Rule { rise: 0.5 };
        let before = after(&rule, &[[2.0, 2.1]]);
        let state = after(&rule, &[[2.0, 2.1], [-1.0, -0.5], [2.0, 9.0]]);
        assert_eq!(state[..3], before[..3]);
        assert!(rule.remark(&state).is_some() && rule.remark(&before).is_none());
    }
}
