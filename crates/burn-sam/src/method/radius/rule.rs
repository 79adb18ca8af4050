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
use crate::method::scalar::{beside, is_not_finite};

pub(super) struct Rule {
    pub(super) rise: f64,
}

/// Each so-manieth step, of a method that otherwise never is at w.
const LOOK: usize = 20;
/// Of r.
const BOUND: f64 = 3.0;
/// Rho, L, L' and L_0, which is below 0 once a loss was; and r.
const STATE: usize = 5;

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

    /// Sums in the places of the state, and how many there are of each.
    fn report(&self, state: &Tensor<1>, Seen { losses, ratio }: Seen) -> Option<Tensor<1>> {
        let [at_w, climbed] = losses.map(|loss| mean(beside(loss, state)));
        let ratio = match ratio {
            Some(ratio) => beside(ratio, state).clamp_max(10.0 * BOUND),
            // Without a g there is nothing to compare with.
            None => at_w.clone() * f64::NAN,
        };
        let of = |climbed: &Tensor<1>| {
            let [w, ratio] = [&at_w, &ratio].map(Tensor::clone);
            Tensor::cat(vec![w.clone(), w.clone(), climbed.clone(), w, ratio], 0)
        };
        // A climbed loss that is not finite counts, but not where that at w is not.
        let unknown = is_not_finite(&of(&at_w));
        let sums = of(&climbed).mask_fill(unknown.clone(), 0.0);
        Some(Tensor::cat(
            vec![sums, unknown.bool_not().float().cast(state.dtype())],
            0,
        ))
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
        let seen = report.clone().narrow(0, 0, STATE) / report.narrow(0, STATE, STATE);
        let unknown = state.clone().is_nan();
        let known = state.clone().mask_where(unknown, seen.clone());
        let [at_w, climbed] = parts(&seen, [1, 2]);
        let [rho, mean, first] = parts(&known, [0, 1, 3]);

        let scale = mean.max_pair(first.clone());
        let negative = (at_w.clone().lower_elem(0.0)).bool_and(climbed.clone().lower_elem(0.0));
        let outlier = at_w.clone().greater(scale.clone() * 3.0);
        // Whatever is not below it, is it: infinity, too.
        let highest = scale * 10.0;
        let is_below = climbed.clone().lower(highest.clone());
        let climbed = highest.mask_where(is_below, climbed);

        let seen = Tensor::cat(
            vec![seen.clone().narrow(0, 0, 2), climbed, seen.narrow(0, 3, 2)],
            0,
        );
        let means = known * decay + seen * (1.0 - decay);
        let unknown = means.clone().is_nan();
        let means = means.mask_where(unknown, state.clone());
        let [mean, of_climbed, ratio] = parts(&means, [1, 2, 4]);

        let learned = (first.clone() - mean.clone()).max_pair(first.clone() * 0.01);
        let h = (mean.clone().min_pair(learned)).max_pair(first.clone() * 1e-6);
        let q = (of_climbed.clone() - mean) / (h * self.rise).clamp_min(1e-30);
        let q = q.max_pair(ratio.clone() / BOUND);
        // exp(-speed clip(ln(q) / 2, -1, 1))
        let factor = (q.clamp((-2.0f64).exp(), 2.0f64.exp())).powf_scalar(-speed / 2.0);
        let rho = (rho * factor).clamp(least, most);
        let next = Tensor::cat(vec![rho, means.narrow(0, 1, 2), first.clone(), ratio], 0);

        // An outlier is left out, but the next one is less of one: if all are, that is how the loss is now.
        let growth = outlier.clone().float().cast(state.dtype()) * 0.25 + 1.0;
        let [rho, mean, of_climbed, start, ratio] = parts(&state, [0, 1, 2, 3, 4]);
        let start = start.mask_fill(negative.clone(), -1.0);
        let unchanged = vec![
            rho,
            mean * growth.clone(),
            of_climbed * growth,
            start,
            ratio,
        ];
        // Without a first loss above 0 there is nothing to measure by.
        let is_left_out = (at_w.is_nan())
            .bool_or(first.lower_equal_elem(0.0))
            .bool_or(negative)
            .bool_or(outlier);
        next.mask_where(is_left_out.expand([STATE]), Tensor::cat(unchanged, 0))
    }

    fn remark(&self, state: &[f64]) -> Option<&'static str> {
        (state[3] < 0.0).then_some(
            "radius rule: a loss below 0 was seen, and the rule can measure only a loss that is 0 at best: rho \
             stays where it is from now on. Choose another radius",
        )
    }
}

fn mean(loss: Tensor<1>) -> Tensor<1> {
    match loss.dims() {
        [1] => loss,
        _ => loss.mean(),
    }
}

fn parts<const N: usize>(of: &Tensor<1>, indices: [usize; N]) -> [Tensor<1>; N] {
    indices.map(|index| of.clone().narrow(0, index, 1))
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
