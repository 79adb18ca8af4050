//! The base optimizer's step: g.

use burn_sam_kernels::Vector;

use super::way::Way;

pub(super) struct Plain;

impl Way for Plain {
    fn descent(&self, g: Vector, _kept: Option<Vector>, _is_limited: bool) -> Vector {
        g
    }
}
