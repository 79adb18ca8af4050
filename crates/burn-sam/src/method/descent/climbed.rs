//! SAM, algorithm 1 of arXiv 2010.01412: h.

use super::way::{Of, Way};

pub(super) struct Climbed;

impl Way for Climbed {
    fn of(&self) -> Of {
        Of::Climbed
    }
}
