//! The rule, this library's own: each step climbs until the loss rises by so much of what there is to lose, or of what
//! has been learned, whichever is less,
//!
//! ```text
//! d   = min(L, max(L_0 - L, L_0 / 100))
//! q   = max((L' - L) / (rise d), r / 3)
//! rho <- rho exp(-0.1 clip(ln(q) / 2, -1, 1))
//! ```
//!
//! with running means L and L' of the losses at w and at w + e(w), the first loss L_0, and the running mean r of
//! |h| / |g|. Gradients that are far longer at w + e(w) than at w are those of a valley that was climbed across, which
//! has nothing to do with noise: there, the rise of a loss that is nearly 0, or nearly at a floor, is no measure.

use burn::tensor::Tensor;
use burn_sam_kernels::Number;

use super::law::{Law, Needs, Pace, Seen};
use crate::method::check;
use crate::method::number::{beside, tensor_like};

pub(super) struct Rule {
    pub(super) rise: f64,
}

/// Each so-manieth step, of a method that otherwise never is at w.
const LOOK: usize = 20;
/// Of r.
const BOUND: f64 = 3.0;

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
        4
    }

    /// The losses, the ratio, and that this is one of so many.
    fn report(&self, state: &Tensor<1>, Seen { losses, ratio }: Seen) -> Option<Tensor<1>> {
        let [at_w, climbed] = losses;
        // Without a g there is nothing to compare with.
        let ratio = ratio.unwrap_or(f64::NAN.into()).clamp(0.0, 10.0 * BOUND);
        Some(tensor_like([at_w, climbed, ratio, 1.0.into()], state))
    }

    fn next(&self, state: Tensor<1>, report: Tensor<1>, pace: Pace) -> Tensor<1> {
        let [at_w, climbed, ratio, count] = Number::all(beside(report, &state));
        let seen = [at_w, climbed, ratio].map(|sum| sum / &count);
        let [rho, mean, climbed, first, ratio] = Number::all(state.clone());
        let before = State {
            rho,
            mean,
            climbed,
            first,
            ratio,
        };
        let next = self.after(before, seen, pace);
        tensor_like(next, &state)
    }

    fn remark(&self, state: &[f64]) -> Option<&'static str> {
        (state[3] < 0.0).then_some(
            "radius rule: a loss below 0 was seen, and the rule can measure only a loss that is 0 at best: rho \
             stays where it is from now on. Choose another radius",
        )
    }
}

/// What is kept.
struct State {
    rho: Number,
    /// L.
    mean: Number,
    /// L'.
    climbed: Number,
    /// L_0, below 0 once a loss was.
    first: Number,
    /// r.
    ratio: Number,
}

impl Rule {
    /// The state after a step with these losses and this ratio.
    fn after(&self, before: State, [at_w, climbed, ratio]: [Number; 3], pace: Pace) -> [Number; 5] {
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
        let (first, mean) = (before.first.or(&at_w), before.mean.or(&at_w));
        let scale = mean.max(&first);
        // Without a first loss above 0 there is nothing to measure by.
        let is_unknown = at_w.is_not_finite();
        let is_outlier = (&scale * 3.0).is_below(&at_w);
        let is_negative = at_w.is_below(0.0).and(&climbed.is_below(0.0));
        let is_left_out = (is_unknown.or(&first.is_at_most(0.0)))
            .or(&is_negative)
            .or(&is_outlier);
        // Whatever is not below the highest, is it: NaN, too.
        let climbed = (scale * 10.0).min(climbed);

        let average = |mean: Number, seen: Number| mean * decay + seen * (1.0 - decay);
        let mean = average(mean, at_w);
        let of_climbed = average(before.climbed.or(&climbed), climbed);
        let ratio = average(before.ratio.or(&ratio), ratio).or(&before.ratio);

        // Both over L_0: min(x, 1 - x) of an x up to 0.99 is min(x, max(1 - x, 0.01)).
        let x = (&mean / &first).clamp(1e-6, 0.99);
        let d = (1.0 - x.clone()).min(x);
        let q = (&of_climbed - &mean) / &first / (d * self.rise);
        let q = q.max(&ratio / BOUND);
        // exp(-speed clip(ln(q) / 2, -1, 1))
        let factor = q.clamp((-2.0f64).exp(), 2.0f64.exp()).powf(-speed / 2.0);
        let rho = (&before.rho * factor).clamp(least, most);

        // An outlier is left out, but the next one is less of one: if all are, that is how the loss is now.
        let is_growing = is_outlier.and(&is_unknown.not());
        let grown = |mean: Number| mean.or_if(&is_growing, &mean * 1.25);
        [
            rho.or_if(&is_left_out, before.rho),
            mean.or_if(&is_left_out, grown(before.mean)),
            of_climbed.or_if(&is_left_out, grown(before.climbed)),
            first.or_if(&is_left_out, before.first.or_if(&is_negative, -1.0)),
            ratio.or_if(&is_left_out, before.ratio),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn_sam_kernels::internals::WithoutKernels;

    use crate::method::tests::numbers;

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
        let steps: Vec<_> = steps.into_iter().collect();
        let states = [false, true].map(|on_device| {
            let _on_device = on_device.then(WithoutKernels::new);
            let mut state = numbers(&rule.start(0.5));
            for (losses, ratio) in &steps {
                let seen = Seen {
                    losses: losses.map(|loss| Number::from(numbers(&[loss]))),
                    ratio: ratio.map(|ratio| Number::from(numbers(&[ratio]))),
                };
                let report = rule.report(&state, seen).unwrap();
                state = rule.next(state, report, PACE);
            }
            state.into_data().iter().collect::<Vec<f64>>()
        });
        let [on_host, on_device] = &states;
        for (x, y) in on_host.iter().zip(on_device) {
            let is_same = (x - y).abs() <= 1e-12 * y.abs() || (x.is_nan() && y.is_nan());
            assert!(
                is_same,
                "{on_host:?} on the host, {on_device:?} on the device"
            );
        }
        let [state, _] = states;
        state
    }

    #[test]
    fn rho_goes_down_where_the_loss_rises_more_than_it_should() {
        let rule = Rule { rise: 0.5 };
        // d = L_0 / 100 = 0.02, q = 0.1 / 0.01 = 10: as far as it goes.
        let state = after(&rule, &[[2.0, 2.1]]);
        assert!((state[0] - 0.5 * (-0.1f64).exp()).abs() < 1e-12);
        assert_eq!(state[1..4], [2.0, 2.1, 2.0]);
        // L = 1.9, L' = 2.0, d = 0.1, q = 2.
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
    fn losses_are_means_over_micro_batches_and_one_that_is_not_finite_leaves_the_step_out() {
        let rule = Rule { rise: 0.5 };
        for on_device in [false, true] {
            let _on_device = on_device.then(WithoutKernels::new);
            let before = numbers(&[0.5, 2.0, 2.1, 2.0, 1.5]);
            let after = |micro_batches: [[f64; 2]; 2]| -> Vec<f64> {
                let [first, second] = micro_batches.map(|losses| {
                    let losses = losses.map(|loss| Number::from(numbers(&[loss])));
                    let ratio = Some(Number::from(1.5));
                    rule.report(&before, Seen { losses, ratio }).unwrap()
                });
                let state = rule.next(before.clone(), first + second, PACE);
                state.into_data().iter().collect()
            };
            assert_eq!(after([[1.0, 1.2], [3.0, 3.4]]), after([[2.0, 2.3]; 2]));
            let unchanged: Vec<f64> = before.clone().into_data().iter().collect();
            for odd in [f64::NAN, f64::INFINITY] {
                assert_eq!(after([[1.0, 1.2], [odd, 1.2]]), unchanged);
            }
            // As far as a climbed loss goes.
            let over = after([[2.0, 2.3], [2.0, f64::INFINITY]]);
            assert!((over[2] - (0.9 * 2.1 + 0.1 * 20.0)).abs() < 1e-12);
        }
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
