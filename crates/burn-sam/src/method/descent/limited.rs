//! h, but no longer than g: h min(1, |g| / |h|). A one-sided form of Li et al. (arXiv 2401.07250), who set the length.
//!
//! Where there is no g, h is no longer than half of what it usually is, with a running mean m of its length,
//!
//! ```text
//! h min(1, m / (2 |h|)),    m <- 0.9 m + 0.1 min(|h|, 1.5 m)
//! ```
//!
//! which begins with the first |h|.

use burn_sam_kernels::Number;

use super::way::{Alone, Of, Way};
use crate::method::number::length_limit;

pub(super) struct Limited;

impl Way for Limited {
    fn of(&self) -> Of {
        Of::Lengths(length_limit)
    }

    fn alone(&self) -> Option<Alone> {
        Some(Alone {
            share,
            report: |m, h| {
                let most = m.or(h) * 1.5;
                // One that is not finite counts as the longest.
                h.or_if(&h.is_not_finite(), &most).min(most)
            },
            next: |m, h| m.or(&h) * 0.9 + h * 0.1,
        })
    }
}

/// min(1, m / (2 |h|)), with the first |h| in the place of an m that is not known; all of an h of 0, or one that is not
/// finite.
fn share(m: &Number, h: &Number) -> Number {
    let share = (m.or(h) / h * 0.5).clamp(0.0, 1.0);
    let as_it_is = share.is_nan().or(&h.is_not_finite());
    share.or_if(&as_it_is, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::method::tests::PLACES;

    #[test]
    fn a_long_h_is_shortened_and_a_short_one_stays() {
        for number in PLACES {
            let share = |gg, hh| length_limit(&number(gg), &number(hh)).read();
            assert_eq!(share(4.0, 16.0), 0.5);
            assert_eq!(share(16.0, 4.0), 1.0);
            // Nothing to compare with.
            assert_eq!(share(0.0, 4.0), 1.0);
        }
    }

    #[test]
    fn without_g_it_is_half_of_what_it_usually_is() {
        let alone = Limited.alone().unwrap();
        for number in PLACES {
            let share = |m, h| (alone.share)(&number(m), &number(h)).read();
            assert_eq!(
                [share(4.0, 8.0), share(4.0, 1.0), share(4.0, 0.0)],
                [0.25, 1.0, 1.0]
            );
            assert_eq!(
                [share(f64::NAN, 8.0), share(4.0, f64::INFINITY)],
                [0.5, 1.0]
            );
            let next = |m, h| {
                let report = (alone.report)(&number(m), &number(h));
                (alone.next)(number(m), report).read()
            };
            assert!((next(4.0, 2.0) - 3.8).abs() < 1e-12);
            // No more than 1.5 of it, whatever h is.
            for h in [100.0, f64::INFINITY, f64::NAN] {
                assert!((next(4.0, h) - 4.2).abs() < 1e-12);
            }
            assert_eq!(next(f64::NAN, 2.0), 2.0);
        }
    }
}
