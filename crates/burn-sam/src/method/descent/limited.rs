//! h, but no longer than g: h min(1, |g| / |h|). A one-sided form of Li et al. (arXiv 2401.07250), who set the length.

use super::way::{Of, Way};
use crate::method::scalar::length_limit;

pub(super) struct Limited;

impl Way for Limited {
    fn of(&self) -> Of {
        Of::Lengths(length_limit)
    }
}

#[cfg(test)]
mod tests {
    use crate::method::scalar::length_limit;
    use crate::method::tests::{number, read};

    #[test]
    fn a_long_h_is_shortened_and_a_short_one_stays() {
        let share = |gg, hh| read(length_limit(&number(gg), &number(hh)));
        assert_eq!(share(4.0, 16.0), 0.5);
        assert_eq!(share(16.0, 4.0), 1.0);
        // Nothing to compare with.
        assert_eq!(share(0.0, 4.0), 1.0);
    }
}
