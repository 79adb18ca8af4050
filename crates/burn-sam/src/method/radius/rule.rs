//! The rule, this library's own: each step climbs until the loss rises by so much of what there is to lose, or of what
//! has been learned, whichever is less,
//!
//! ```text
//! h   = min(L, max(L_0 - L, L_0 / 100))
//! q   = max((L' - L) / (rise h), r / 3)
//! rho <- rho exp(-0.1 clip(ln(q) / 2, -1, 1))
//! ```
//!
//! with running means L and L' of the losses at w and at w + e(w), the first loss L_0, and the running mean r of
//! |h| / |g|. Gradients that are far longer at w + e(w) than at w are those of a valley that was climbed across, which
//! has nothing to do with noise: there, the rise of a loss that is nearly 0, or nearly at a floor, is no measure.

use burn::tensor::Tensor;

use super::law::{Law, Needs, Pace, Seen};
use crate::method::check;
use crate::method::scalar::{beside, known_or};

pub(super) struct Rule {
    pub(super) rise: f64,
}

/// Each so-manieth step, of a method that otherwise never is at w.
const LOOK: usize = 20;
/// Of r.
const BOUND: f64 = 3.0;
/// Rho, L, L' and L_0, which is below 0 once a loss was; and r.
const STATE: usize = 5;
/// Sums of the losses at w and at w + e(w), and the numbers of these, of outliers, and of losses below 0; the sum of
/// the ratios, and the number of these.
const REPORT: usize = 7;

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

    /// All of the first 20, when running statistics are still those of the start, and each 20th.
    fn looks(&self, step: usize) -> bool {
        step < LOOK || step.is_multiple_of(LOOK)
    }

    fn start(&self, rho: f64) -> Vec<f64> {
        vec![rho, f64::NAN, f64::NAN, f64::NAN, f64::NAN]
    }

    fn former(&self) -> usize {
        STATE - 1
    }

    fn report(&self, state: &Tensor<1>, Seen { losses, ratio }: Seen) -> Option<Tensor<1>> {
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
        let most = one.clone() * (10.0 * BOUND);
        let ratio = ratio.map(|ratio| beside(ratio, state));
        // Without a g there is nothing to compare with; an h that is not finite is as long as any.
        let ratio = ratio.unwrap_or_else(|| one.clone() * f64::NAN);
        let compared = ratio.clone().is_nan().bool_not();
        let ratio = ratio
            .min_pair(most)
            .mask_fill(compared.clone().bool_not(), 0.0);
        let seen = vec![seen, flag(outlier), flag(negative), ratio, flag(compared)];
        Some(Tensor::cat(seen, 0))
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
        let [
            of_w,
            of_climbed,
            count,
            outliers,
            negatives,
            ratios,
            compared,
        ] = core::array::from_fn::<_, REPORT, _>(|index| part(&report, index));
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
        let old = part(&state, 4);
        let ratio = mean(4, &(ratios / compared.clone()));
        let ratio = ratio.mask_where(compared.equal_elem(0.0), old.clone());
        let beyond = known_or(ratio.clone() / BOUND, &ratio.zeros_like());
        let q = (climbed.clone() - at_w.clone()) / (h * self.rise);
        let q = q.max_pair(beyond).clamp(1e-3, 1e3);
        let rho = part(&state, 0) * (((q.log() * 0.5).clamp(-1.0, 1.0)) * -speed).exp();
        let next = vec![rho.clamp(least, most), at_w, climbed, first, ratio];
        let next = Tensor::cat(next, 0);

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
                old,
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
        let steps = losses.iter().map(|losses| (*losses, None));
        after_ratios(rule, steps)
    }

    fn after_ratios(
        rule: &Rule,
        steps: impl IntoIterator<Item = ([f64; 2], Option<f64>)>,
    ) -> Vec<f64> {
        let mut state = numbers(&rule.start(0.5));
        for (losses, ratio) in steps {
            let seen = Seen {
                losses: losses.map(number),
                ratio: ratio.map(number),
            };
            let report = rule.report(&state, seen).unwrap();
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
        assert_eq!(state[1..4], [2.0, 2.1, 2.0]);
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
            assert_eq!(
                after(&rule, &[[2.0, 2.1], [1.0, 1.1], odd])[..4],
                usual[..4]
            );
        }
        let odd = after(&rule, &[[2.0, 2.1], [1.0, 1.1], [1e12, 1e12]]);
        assert_eq!([odd[0], odd[3]], [usual[0], usual[3]]);
        assert_eq!(odd[1], usual[1] * 1.25);
        // A rise that is none counts as 10 times the first loss.
        let over = after(&rule, &[[2.0, 2.1], [1.0, f64::NAN]]);
        assert!((over[2] - (0.9 * 2.1 + 0.1 * 20.0)).abs() < 1e-12);
    }

    #[test]
    fn rho_goes_down_where_gradients_are_far_longer_than_at_w() {
        let rule = Rule { rise: 0.5 };
        // No rise at all, which alone would let rho grow, and a mean ratio of 6, then 6.6: q = 2, then 2.2.
        let state = after_ratios(&rule, [([2.0, 2.0], Some(6.0)), ([2.0, 2.0], Some(12.0))]);
        let expected = 0.5 * (-0.05 * (2f64.ln() + 2.2f64.ln())).exp();
        assert!((state[0] - expected).abs() < 1e-12);
        assert!((state[4] - 6.6).abs() < 1e-12);
        // One that is not finite counts as 30, and one of nothing not at all.
        let of = |ratio| after_ratios(&rule, [([2.0, 2.0], Some(6.0)), ([2.0, 2.0], ratio)])[4];
        assert!((of(Some(f64::INFINITY)) - 8.4).abs() < 1e-12);
        assert_eq!([of(Some(f64::NAN)), of(None)], [6.0, 6.0]);
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
