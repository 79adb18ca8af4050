//! SAM's second step: from the gradients h at w + e(w), and what is known of those at w, g, to what the base optimizer
//! gets. Where the climb went over an edge, that is g, whatever the method.

use burn::module::Module;
use burn::tensor::{Bool, Tensor};
use burn_sam_kernels::{Vector, known};

use super::climb::Way;
use super::survey::Survey;
use super::walk;
use crate::method::{Method, Of, beside, is_not_finite, set_where};

/// What the descent knows of the gradients g at w.
#[derive(Clone, Debug)]
pub(crate) struct AtW {
    /// g itself, if it was kept.
    pub(crate) grads: Option<Vector>,
    /// The last climb's, if there was no other: g can be read off it.
    way: Option<Way>,
    /// |g|², if it is known without g.
    squared_norm: Option<Tensor<1>>,
}

impl AtW {
    /// With several ascents, `way` is the first one's.
    pub(crate) fn new(method: &Method, grads: Option<Vector>, way: Option<Way>) -> Self {
        let squared_norm = way.as_ref().map(|way| way.squared_norm.clone());
        let is_on_the_way = grads.is_none() && method.ascents == 1;
        Self {
            grads,
            way: way.filter(|_| is_on_the_way),
            squared_norm,
        }
    }
}

/// What the base optimizer gets, and |h| / |g|, if both are known.
///
/// # Arguments
///
/// * `survey` - of the module at w.
/// * `climbed` - at w + e(w), for a step over an edge to be one at w; otherwise what is not finite is seen.
/// * `h` - the gradients there.
pub(crate) fn descend<M: Module>(
    method: &Method,
    survey: &Survey,
    at_w: &AtW,
    climbed: Option<&M>,
    h: Vector,
) -> (Vector, Option<Tensor<1>>) {
    match method.descent.way().of() {
        Of::Both(coefficients) => weigh(coefficients, at_w, climbed.is_some(), h),
        Of::Climbed if climbed.is_none() => (h, None),
        Of::Climbed => limit(None, survey, at_w, climbed, h),
        Of::Lengths(share) => limit(Some(share), survey, at_w, climbed, h),
    }
}

/// x h + y g; h where g is not finite, and g where the climb went over an edge.
fn weigh(
    coefficients: impl FnOnce([Tensor<1>; 3]) -> [Tensor<1>; 2],
    at_w: &AtW,
    is_rescued: bool,
    h: Vector,
) -> (Vector, Option<Tensor<1>>) {
    let both = (at_w.grads.as_ref()).and_then(|g| Some((g, g.products(&h)?)));
    let Some((g, [gg, gh, hh])) = both else {
        return (h, None);
    };
    let ratio = (hh.clone() / gg.clone()).sqrt();
    let over_the_edge = over_the_edge(&gg, &hh, is_rescued);
    let refused = is_not_finite(&gg);
    let coefficients = coefficients([gg, gh, hh]);
    let coefficients = set_where(coefficients, &refused, [1.0, 0.0]);
    let [x, y] = set_where(coefficients, &over_the_edge, [0.0, 1.0]);
    (h.combine(x, &[(g, y)]), Some(ratio))
}

/// h, perhaps shortened; g where the climb went over an edge.
fn limit<M: Module>(
    share: Option<fn(&Tensor<1>, &Tensor<1>) -> Tensor<1>>,
    survey: &Survey,
    at_w: &AtW,
    climbed: Option<&M>,
    h: Vector,
) -> (Vector, Option<Tensor<1>>) {
    let kept = at_w.grads.as_ref();
    let norms = match at_w.squared_norm.clone() {
        Some(gg) => h.squared_norm().map(|hh| (gg, hh)),
        None => (kept.and_then(|kept| kept.products(&h))).map(|[gg, _, hh]| (gg, hh)),
    };
    let Some((gg, hh)) = norms else {
        return (h, None);
    };
    let gg = beside(gg, &hh);
    let ratio = Some((hh.clone() / gg.clone()).sqrt());
    // Where reading waits for nothing, most steps are done here.
    if let (Some(gg), Some(hh)) = (known(&gg), known(&hh))
        && hh.is_finite()
        && (share.is_none() || hh <= gg)
    {
        return (h, ratio);
    }
    let over_the_edge = over_the_edge(&gg, &hh, climbed.is_some());
    let share = match share {
        Some(share) => share(&gg, &hh),
        None => hh.ones_like(),
    };
    let share = share.mask_fill(is_not_finite(&hh), 1.0);
    let nothing = share.zeros_like();
    let [x, y] = set_where([share.clone(), nothing], &over_the_edge, [0.0, 1.0]);
    // Other workers would read off another g.
    let way = (at_w.way.as_ref().zip(climbed)).filter(|_| !survey.is_distributed);
    let descent = match (kept, way) {
        (Some(g), _) => {
            let g = g.padded(&h);
            h.combine(x, &[(&g, y)])
        }
        (None, Some((way, climbed))) => restore(survey, climbed, h, way, [x, y]),
        (None, None) => h.scaled(share),
    };
    (descent, ratio)
}

/// x h + y g, with g read off the way from w to w + e(w): what was climbed is rho g / (|g| + eps).
fn restore<M: Module>(
    survey: &Survey,
    climbed: &M,
    h: Vector,
    way: &Way,
    [x, y]: [Tensor<1>; 2],
) -> Vector {
    let climbed = walk::weights(climbed);
    let unread = y.clone().equal_elem(0.0);
    let of_all = by_value(h, |place| survey.rho(place) * way.factor).into_iter();
    let restored = of_all.map(|(rho, h)| match rho == 0.0 {
        // It did not move; it may have had a gradient.
        true => {
            let g = way.unmoved.padded(&h);
            h.combine(x.clone(), &[(&g, y.clone())])
        }
        false => {
            let scale = beside(way.norm.clone(), &y) / rho;
            let scale = scale.mask_fill(unread.clone(), 0.0);
            let less = scale.clone().neg();
            h.combine(x.clone(), &[(&climbed, scale), (&survey.weights, less)])
        }
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
fn over_the_edge(gg: &Tensor<1>, hh: &Tensor<1>, may_be: bool) -> Tensor<1, Bool> {
    match may_be {
        true => gg.clone().is_finite().bool_and(is_not_finite(hh)),
        false => hh.zeros_like().bool(),
    }
}
