//! SAM's second step: from the gradients h at w + e(w), and what is known of those at w, g, to what the base optimizer
//! gets. Where the climb went over an edge, that is g, whatever the method.

use burn::module::Module;
use burn_sam_kernels::{Flag, Instead, Number, Part, Vector};

use super::climb::Way;
use super::survey::Survey;
use super::walk;
use crate::method::{Method, Of};

/// What the descent knows of the gradients g at w.
#[derive(Clone, Debug)]
pub(crate) struct AtW {
    /// g itself, if it was kept.
    pub(crate) grads: Option<Vector>,
    /// The first climb's, if it went along g.
    way: Option<Way>,
    /// Whether there was no other, so that g can be read off it.
    is_only_way: bool,
}

impl AtW {
    /// With several ascents, `way` is the first one's.
    pub(crate) fn new(method: &Method, grads: Option<Vector>, way: Option<Way>) -> Self {
        Self {
            grads,
            way,
            is_only_way: method.ascents == 1,
        }
    }
}

/// What the base optimizer gets, and |h| / |g|, if the method needs it and both are known.
///
/// # Arguments
///
/// * `survey` - of the module at w.
/// * `climbed` - at w + e(w), for a step over an edge to be one at w; otherwise what is not finite is seen.
/// * `h` - the gradients there.
pub(crate) fn descend<M: Module>(
    method: &Method,
    survey: &Survey,
    at_w: AtW,
    climbed: Option<M>,
    h: Vector,
) -> (Vector, Option<Number>) {
    let ratio = |gg: &Number, hh: &Number| {
        let needed = method.needs().losses;
        needed.then(|| (hh / gg).sqrt())
    };
    match method.descent.way().of() {
        Of::Both(coefficients) => weigh(coefficients, at_w, climbed.is_some(), h, ratio),
        Of::Climbed if climbed.is_none() => (h, None),
        Of::Climbed => limit(None, survey, at_w, climbed, h, ratio),
        Of::Lengths(share) => limit(Some(share), survey, at_w, climbed, h, ratio),
    }
}

/// x h + y g; h where g is not finite, and g where the climb went over an edge.
fn weigh(
    coefficients: impl FnOnce([Number; 3]) -> [Number; 2],
    at_w: AtW,
    is_rescued: bool,
    h: Vector,
    ratio: impl FnOnce(&Number, &Number) -> Option<Number>,
) -> (Vector, Option<Number>) {
    let both = (at_w.grads).and_then(|g| g.products(&h).map(|products| (g, products)));
    let Some((g, [gg, gh, hh])) = both else {
        return (h, None);
    };
    let ratio = ratio(&gg, &hh);
    let refused = gg.is_not_finite();
    let over_the_edge = is_rescued.then(|| over_the_edge(&gg, &hh));
    let [mut x, mut y] = coefficients([gg, gh, hh]);
    (x, y) = (x.or_if(&refused, 1.0), y.or_if(&refused, 0.0));
    if let Some(over) = over_the_edge {
        (x, y) = (x.or_if(&over, 0.0), y.or_if(&over, 1.0));
    }
    (h.combine(x, &[(&g, y)]), ratio)
}

/// h, perhaps shortened; g where the climb went over an edge.
fn limit<M: Module>(
    share: Option<fn(&Number, &Number) -> Number>,
    survey: &Survey,
    at_w: AtW,
    climbed: Option<M>,
    h: Vector,
    ratio: impl FnOnce(&Number, &Number) -> Option<Number>,
) -> (Vector, Option<Number>) {
    let kept = at_w.grads;
    let norms = match &at_w.way {
        Some(way) => h.squared_norm().map(|hh| (way.squared_norm.clone(), hh)),
        None => (kept.as_ref().and_then(|kept| kept.products(&h))).map(|[gg, _, hh]| (gg, hh)),
    };
    let Some((gg, hh)) = norms else {
        return (h, None);
    };
    let ratio = ratio(&gg, &hh);
    let share = share.map(|share| share(&gg, &hh).or_if(&hh.is_not_finite(), 1.0));
    let shortened = |h: Vector, share: Option<Number>| match share {
        None => h,
        Some(share) if share.host() == Some(1.0) => h,
        Some(share) => h.scaled(share),
    };
    let over_the_edge = over_the_edge(&gg, &hh);
    // Where reading waits for nothing, most steps are done here.
    if over_the_edge.host() == Some(false) {
        return (shortened(h, share), ratio);
    }
    // Other workers would read off another g.
    let is_readable = at_w.is_only_way && !survey.is_distributed;
    let descent = match (climbed, kept, at_w.way) {
        (Some(_), Some(g), _) => {
            let g = g.padded(&h);
            h.scaled_or(share, over_the_edge, Instead::Vector(&g))
        }
        (Some(climbed), None, Some(way)) if is_readable => {
            restored(survey, climbed, h, way, share, over_the_edge)
        }
        _ => shortened(h, share),
    };
    (descent, ratio)
}

/// So much of h, or, over the edge, g, read off the way from w to w + e(w): what was climbed is rho g / (|g| + eps).
fn restored<M: Module>(
    survey: &Survey,
    climbed: M,
    h: Vector,
    way: Way,
    share: Option<Number>,
    over_the_edge: Flag,
) -> Vector {
    let mut ends = walk::weights(&climbed);
    drop(climbed);
    let restored = by_value(h, |place| survey.rho(place) * way.factor).into_iter();
    let restored = restored.map(|(rho, h)| {
        // It did not move; it may have had a gradient.
        if rho == 0.0 {
            let instead = Instead::Vector(&way.unmoved.padded(&h));
            return h.scaled_or(share.clone(), over_the_edge.clone(), instead);
        }
        let is_here = |end: &Part| h.get(end.place()).is_some();
        let (to, others) = core::mem::take(&mut ends).into_iter().partition(is_here);
        ends = others;
        let instead = Instead::Way {
            from: &survey.weights,
            to,
            times: &way.per_rho / rho,
        };
        h.scaled_or(share.clone(), over_the_edge.clone(), instead)
    });
    restored.reduce(Vector::merged).unwrap_or_default()
}

/// Parts with the same value of something, by that value.
pub(crate) fn by_value(vector: Vector, value: impl Fn(usize) -> f64) -> Vec<(f64, Vector)> {
    let mut lists: Vec<(f64, Vector)> = Vec::new();
    for part in vector {
        let of_part = value(part.place());
        match lists.iter_mut().find(|(value, _)| *value == of_part) {
            Some((_, list)) => list.push(part),
            None => lists.push((of_part, [part].into_iter().collect())),
        }
    }
    lists
}

/// Whether the climb went over an edge, of the squared norms of g and h.
fn over_the_edge(gg: &Number, hh: &Number) -> Flag {
    gg.is_not_finite().not().and(&hh.is_not_finite())
}
