//! Between a module and vectors: all walks over modules, but for the one to running statistics.
//!
//! A parameter is told by its place in the module's order, for a clone beside its origin (a target network, a teacher)
//! has the same ids. Burn's gradients by parameter know ids alone; of several parameters with one id, the gradient is
//! the first one's that requires gradients.

use std::collections::HashSet;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::{Gradients, Tensor};
use burn_sam_kernels::{Part, Vector};

/// A floating-point parameter that a walk comes to.
pub(crate) struct Leaf<'a> {
    place: usize,
    path: &'a [String],
    container: &'a str,
    param: &'a dyn Float,
}

/// What does not depend on the rank.
trait Float {
    fn id(&self) -> ParamId;
    fn is_trainable(&self) -> bool;
    fn is_distributed(&self) -> bool;
    fn weight(&self, place: usize) -> Part;
    fn take(&self, place: usize, grads: &mut GradientsParams) -> Option<Part>;
    fn take_from(&self, place: usize, grads: &mut Gradients) -> Option<Part>;
    fn is_in(&self, grads: &GradientsParams) -> bool;
    fn register(&self, grads: &mut GradientsParams, part: Part);
}

impl<const D: usize> Float for Param<Tensor<D>> {
    fn id(&self) -> ParamId {
        self.id
    }

    fn is_trainable(&self) -> bool {
        self.is_require_grad()
    }

    fn is_distributed(&self) -> bool {
        self.is_require_grad() && self.val().is_distributed()
    }

    fn weight(&self, place: usize) -> Part {
        Part::new(place, self.val().without_autodiff())
    }

    fn take(&self, place: usize, grads: &mut GradientsParams) -> Option<Part> {
        Some(Part::new(place, grads.remove::<D>(self.id)?))
    }

    fn take_from(&self, place: usize, grads: &mut Gradients) -> Option<Part> {
        Some(Part::new(place, self.val().grad_remove(grads)?))
    }

    fn is_in(&self, grads: &GradientsParams) -> bool {
        grads.get::<D>(self.id).is_some()
    }

    fn register(&self, grads: &mut GradientsParams, part: Part) {
        grads.register(self.id, part.into_tensor::<D>());
    }
}

impl Leaf<'_> {
    /// Its place in the module's order.
    pub(crate) fn place(&self) -> usize {
        self.place
    }

    pub(crate) fn id(&self) -> ParamId {
        self.param.id()
    }

    /// Of a walk with paths; otherwise it is empty.
    pub(crate) fn path(&self) -> String {
        self.path.join(".")
    }

    /// The dimension along which it has its filters, if it has any. Of a walk with paths.
    pub(crate) fn filter_dim(&self) -> Option<usize> {
        let rank = self.weight().shape().num_dims();
        let layer = (self.container.strip_prefix("Struct:")).unwrap_or(self.container);
        match rank {
            0 | 1 => None,
            _ if layer.starts_with("ConvTranspose") => Some(1),
            2 if layer != "Embedding" => Some(1),
            _ => Some(0),
        }
    }

    /// Whether it requires gradients.
    pub(crate) fn is_trainable(&self) -> bool {
        self.param.is_trainable()
    }

    /// Whether other workers have it too.
    pub(crate) fn is_distributed(&self) -> bool {
        self.param.is_distributed()
    }

    /// Whether it has a gradient there.
    pub(crate) fn is_in(&self, grads: &GradientsParams) -> bool {
        self.param.is_in(grads)
    }

    /// Its value, without autodiff.
    pub(crate) fn weight(&self) -> Part {
        self.param.weight(self.place)
    }
}

/// Calls `f` with each floating-point parameter.
pub(crate) fn each<M: Module>(module: &M, f: impl FnMut(Leaf<'_>)) {
    walk(module, false, f);
}

/// As [`each`], with the parameters' paths and containers, which take time to put together.
pub(crate) fn each_with_path<M: Module>(module: &M, f: impl FnMut(Leaf<'_>)) {
    walk(module, true, f);
}

/// Calls `f` with each parameter that requires gradients: of several with one id, with the first. With paths.
pub(crate) fn each_parameter<M: Module>(module: &M, f: impl FnMut(Leaf<'_>)) {
    each_with_path(module, trainable(f));
}

/// Of the parameters of a walk those that require gradients: of several with one id, the first.
pub(crate) fn trainable(mut f: impl FnMut(Leaf<'_>)) -> impl FnMut(Leaf<'_>) {
    let mut seen = HashSet::new();
    move |leaf| {
        if leaf.is_trainable() && seen.insert(leaf.id()) {
            f(leaf);
        }
    }
}

fn walk<M: Module>(module: &M, with_paths: bool, f: impl FnMut(Leaf<'_>)) {
    struct Walk<F> {
        place: usize,
        with_paths: bool,
        path: Vec<String>,
        container: String,
        f: F,
    }

    impl<F: FnMut(Leaf<'_>)> ModuleVisitor for Walk<F> {
        fn enter_module(&mut self, name: &str, container_type: &str) {
            if self.with_paths {
                self.path.push(name.to_string());
                self.container = container_type.to_string();
            }
        }

        fn exit_module(&mut self, _name: &str, _container_type: &str) {
            self.path.pop();
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            (self.f)(Leaf {
                place: self.place,
                path: &self.path,
                container: &self.container,
                param,
            });
            self.place += 1;
        }
    }

    module.visit(&mut Walk {
        place: 0,
        with_paths,
        path: Vec::new(),
        container: String::new(),
        f,
    });
}

/// The gradients of a loss, of the module that it was taken with.
pub(crate) fn gradients<M: Module>(module: &M, mut grads: Gradients) -> Vector {
    let (mut vector, mut seen) = (Vector::new(), HashSet::new());
    each(module, |leaf| {
        if leaf.is_trainable()
            && let Some(part) = leaf.param.take_from(leaf.place, &mut grads)
            && seen.insert(leaf.id())
        {
            vector.push(part);
        }
    });
    vector
}

/// Gradients by parameter.
///
/// # Panics
///
/// If there are any, but none belongs to a parameter of the module.
pub(crate) fn take<M: Module>(module: &M, mut grads: GradientsParams) -> Vector {
    let count = grads.len();
    let (mut vector, mut others) = (Vector::with_capacity(count), Vector::new());
    if count == 0 {
        return vector;
    }
    let grads = &mut grads;
    each(module, |leaf| {
        if leaf.is_trainable()
            && let Some(part) = leaf.param.take(leaf.place, grads)
        {
            vector.push(part);
        }
    });
    // Gradients made by hand may be of parameters that require none.
    if !grads.is_empty() {
        each(module, |leaf| {
            if let Some(part) = leaf.param.take(leaf.place, grads) {
                others.push(part);
            }
        });
    }
    let vector = match others.is_empty() {
        true => vector,
        false => vector.merged(others),
    };
    assert!(
        !vector.is_empty(),
        "SAM's step got {count} gradients, but none belongs to a parameter of the module: take them with \
         GradientsParams::from_grads(loss.backward(), &model), of the same model (of the climbed one, for a second step)"
    );
    vector
}

/// A vector as gradients by parameter.
pub(crate) fn register<M: Module>(module: &M, vector: Vector) -> GradientsParams {
    let mut grads = GradientsParams::new();
    let mut parts = vector.into_iter().peekable();
    each(module, |leaf| {
        if let Some(part) = parts.next_if(|part| part.place() == leaf.place) {
            leaf.param.register(&mut grads, part);
        }
    });
    grads
}

/// The module's parameters, without autodiff.
pub(crate) fn weights<M: Module>(module: &M) -> Vector {
    let mut weights = Vector::new();
    each(module, |leaf| weights.push(leaf.weight()));
    weights
}

/// The module with the vector's parts in the place of its parameters, each with what a parameter has besides its
/// value: whether it requires gradients, its checkpointing strategy, its distribution over devices. Burn's optimizers
/// do the same, but on a small model they take twice as long for it.
///
/// The other parameters that require gradients stay where they are, but are other leaves of the graph: the gradients of
/// a loss of the module that went in are not theirs.
pub(crate) fn replace<M: Module>(module: M, vector: Vector) -> M {
    struct Replace {
        /// In the order of a visit.
        ids: Vec<ParamId>,
        parts: Vec<Option<Part>>,
        place: usize,
    }

    impl Replace {
        /// The part of the next parameter; of a module written by hand that maps in another order than it visits, that
        /// of the parameter's id.
        fn next(&mut self, id: ParamId) -> Option<Part> {
            let place = match self.ids.get(self.place) == Some(&id) {
                true => Some(self.place),
                false => self.ids.iter().position(|of| *of == id),
            };
            self.place += 1;
            self.parts.get_mut(place?)?.take()
        }
    }

    impl ModuleMapper for Replace {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let id = param.id;
            match self.next(id) {
                Some(part) => param.map(|weight| in_place_of(weight, part.into_tensor(), id)),
                None if param.is_require_grad() => param.map(|weight| {
                    let same = weight.clone().inner();
                    in_place_of(weight, same, id)
                }),
                None => param,
            }
        }
    }

    let mut ids = Vec::new();
    each(&module, |leaf| ids.push(leaf.id()));
    let mut parts: Vec<Option<Part>> = ids.iter().map(|_| None).collect();
    for part in vector {
        let place = part.place();
        parts[place] = Some(part);
    }
    module.map(&mut Replace {
        ids,
        parts,
        place: 0,
    })
}

/// A value in the place of a parameter.
fn in_place_of<const D: usize>(parameter: Tensor<D>, value: Tensor<D>, id: ParamId) -> Tensor<D> {
    let mut value = Tensor::from_inner(value);
    let strategy = parameter.gradient_checkpointing_strategy();
    if let Some(strategy) = strategy
        && value.gradient_checkpointing_strategy() != Some(strategy)
    {
        value = value.with_gradient_checkpointing_strategy(strategy);
    }
    if parameter.is_require_grad() {
        value = value.require_grad();
    }
    match parameter.is_distributed() {
        true => value.set_distributed(id),
        false => value,
    }
}
