use burn::config::Config;
use burn::module::{ParamGroup, ParamId};
use serde::{Deserialize, Serialize};

use crate::diagnostics::OptimizerRule;
use crate::step::Kind;
use crate::{Ascent, AscentPart, Between, Descent, Radius, SamOptimizer, SamSteps};

/// Configuration of sharpness-aware minimization (SAM).
///
/// It nests in a configuration of your own, is saved and loaded with it (see
/// [`Config`]), and takes SAM's steps in one of two ways:
///
#[cfg_attr(
    feature = "train",
    doc = "* [`init`](Self::init) wraps a model, for Burn's `Learner`;"
)]
#[cfg_attr(
    not(feature = "train"),
    doc = "* `init` (with the feature `train`) wraps a model, for Burn's `Learner`;"
)]
/// * [`first_step`](Self::first_step) and [`Climbed::second_step`](crate::Climbed::second_step), in a
///   loop of your own, around any of Burn's optimizers.
///
/// # Defaults
///
/// | field | default | what it is |
/// | --- | --- | --- |
/// | `rho` | 0.05 | radius of the neighbourhood, in the units of the weights |
/// | `radius` | `"constant"` | how rho changes from step to step: a [`Radius`] |
/// | `adaptive` | false | whether the radius is relative to each weight (ASAM) |
/// | `eta` | 0 | ASAM's offset: its T is \|w\| + eta |
/// | `eps` | 1e-12 | stability constant, added to the gradient norm |
/// | `adaptive_biases` | true | if adaptive, whether biases are too (not with [`asam`](Self::asam)) |
/// | `ascent_fraction` | 1 | part of the batch that the first pass takes |
/// | `ascent` | `"gradient"` | which way to climb: an [`Ascent`] |
/// | `ascents` | 1 | climbs a step, each of a radius of rho |
/// | `every` | 1 | only each so-manieth step climbs |
/// | `between` | `"plain"` | what the steps between do: a [`Between`] |
/// | `start` | 0 | the step from which on to climb |
/// | `descent` | `"climbed"` | what the base optimizer gets: a [`Descent`] |
/// | groups | none | parameter groups with a rho of their own |
///
/// A field that is missing in a file has its default; one that is not known, or that has a value
/// out of range, is an error.
///
/// # Example
///
/// ```
/// use burn::{config::Config, module::ParamGroup};
/// use burn_sam::SamConfig;
///
/// #[derive(Config, Debug)]
/// struct TrainingConfig {
///     #[config(default = 64)]
///     batch_size: usize,
///     sam: SamConfig,
/// }
///
/// let config = TrainingConfig::new(
///     SamConfig::new()
///         .with_rho(0.1)
///         .with_group(ParamGroup::from_predicate("norm"), 0.0),
/// );
/// let file = std::env::temp_dir().join("burn-sam-config-example.json");
/// config.save(&file).unwrap();
/// assert_eq!(TrainingConfig::load(&file).unwrap().sam, config.sam);
/// ```
///
/// # References
///
/// [Sharpness-Aware Minimization](https://arxiv.org/abs/2010.01412) (Foret et al.), and for
/// `adaptive` [ASAM](https://arxiv.org/abs/2102.11600) (Kwon et al.).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct SamConfig {
    rho: f64,
    radius: Radius,
    adaptive: bool,
    eta: f64,
    eps: f64,
    adaptive_biases: bool,
    ascent_fraction: f64,
    ascent: Ascent,
    ascents: usize,
    every: usize,
    between: Between,
    start: usize,
    descent: Descent,
    groups: Vec<RhoGroup>,
}

/// The parameters of `group` climb with `rho`.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct RhoGroup {
    group: ParamGroup,
    rho: f64,
}

impl Config for SamConfig {}

impl Default for SamConfig {
    fn default() -> Self {
        Self {
            rho: 0.05,
            radius: Radius::Constant,
            adaptive: false,
            eta: 0.0,
            eps: 1e-12,
            adaptive_biases: true,
            ascent_fraction: 1.0,
            ascent: Ascent::Gradient,
            ascents: 1,
            every: 1,
            between: Between::Plain,
            start: 0,
            descent: Descent::Climbed,
            groups: Vec::new(),
        }
    }
}

impl SamConfig {
    /// The defaults of the paper: plain SAM with a rho of 0.05.
    pub fn new() -> Self {
        Self::default()
    }

    /// SAM without a radius to choose, and without one that kills: rho [sets itself](Radius::Rule), and the
    /// gradients to descend along are [limited](Descent::Limited) to the length of those at w.
    ///
    /// Two passes a step. [`rho`](Self::with_rho) is where the radius starts, and matters little.
    ///
    /// ```
    /// use burn_sam::{Descent, Radius, SamConfig};
    ///
    /// let auto = SamConfig::new()
    ///     .with_radius(Radius::Rule { rise: 0.7 })
    ///     .with_descent(Descent::Limited);
    /// assert_eq!(SamConfig::auto(), auto);
    /// ```
    pub fn auto() -> Self {
        Self {
            radius: Radius::Rule { rise: 0.7 },
            descent: Descent::Limited,
            ..Self::default()
        }
    }

    /// [`auto`](Self::auto) for little more than the base optimizer's time: [LookSAM](Self::looksam), whose
    /// radius sets itself at every fifth step, with the steps between limited too.
    pub fn auto_looksam() -> Self {
        Self {
            radius: Radius::Rule { rise: 0.3 },
            descent: Descent::Limited,
            ..Self::looksam()
        }
    }

    /// ASAM as its authors have it: [adaptive](Self::with_adaptive) but for biases, with an eta of 0.01
    /// and a rho of 0.5.
    ///
    /// A bias, or the beta of a normalization layer, climbs as in SAM, with a T of 1.
    ///
    /// # References
    ///
    /// [ASAM](https://arxiv.org/abs/2102.11600) (Kwon et al.), algorithm 1 and section 5.
    pub fn asam() -> Self {
        Self {
            rho: 0.5,
            adaptive: true,
            eta: 0.01,
            adaptive_biases: false,
            ..Self::default()
        }
    }

    /// Momentum SAM: one pass a step, for the price of the base optimizer's. See [`Ascent::Msam`].
    ///
    /// Rho is 2, which was best for two small networks, with 40 % of their labels wrong; it is larger than
    /// SAM's.
    pub fn msam() -> Self {
        Self {
            rho: 2.0,
            ascent: Ascent::Msam,
            ..Self::default()
        }
    }

    /// LookSAM over the whole model: every fifth step is one of SAM's, and the steps between take one pass
    /// and reuse what that step found. See [`Between::Looksam`]. Not for a network with dropout, whose masks are others
    /// in each pass: what is reused is then mostly the masks.
    pub fn looksam() -> Self {
        Self {
            every: 5,
            between: Between::Looksam { alpha: 0.5 },
            ..Self::default()
        }
    }

    /// Friendly SAM: climbs along what a batch's gradient has of its own, with the authors' sigma of 1 and
    /// lambda of 0.9. See [`Ascent::Friendly`].
    pub fn friendly() -> Self {
        Self {
            ascent: Ascent::Friendly {
                sigma: 1.0,
                lambda: 0.9,
            },
            ..Self::default()
        }
    }

    /// Sets the radius rho of the neighbourhood, for every parameter that no
    /// [group](Self::with_group) matches.
    ///
    /// The perturbation's norm over all parameters is rho. Typical values lie between 0.01 and
    /// 0.5, and up to 10 times that with [`with_adaptive`](Self::with_adaptive). With 0, SAM
    /// takes the base optimizer's steps, at twice the price.
    ///
    /// # Panics
    ///
    /// If `rho` is negative, NaN or infinite.
    pub fn with_rho(mut self, rho: f64) -> Self {
        self.rho = rho;
        self.checked()
    }

    /// Sets how rho changes from step to step.
    ///
    /// # Panics
    ///
    /// If a number of it is out of range, or it does not go with another setting.
    pub fn with_radius(mut self, radius: Radius) -> Self {
        self.radius = radius;
        self.checked()
    }

    /// Sets whether the radius is relative to each weight's magnitude
    /// ([ASAM](https://arxiv.org/abs/2102.11600)), which makes sharpness independent of how the
    /// weights are scaled.
    ///
    /// With T = |w| + eta, the norm is that of T g, and e(w) = rho T² g / (norm + eps).
    pub fn with_adaptive(mut self, adaptive: bool) -> Self {
        self.adaptive = adaptive;
        self
    }

    /// Sets ASAM's eta, which lets weights at zero move too. Without
    /// [`with_adaptive`](Self::with_adaptive) it has no effect.
    ///
    /// # Panics
    ///
    /// If `eta` is negative, NaN or infinite.
    pub fn with_eta(mut self, eta: f64) -> Self {
        self.eta = eta;
        self.checked()
    }

    /// Sets the stability constant that is added to the gradient norm.
    ///
    /// It may be 0: gradients that are all zero give no perturbation in any case.
    ///
    /// # Panics
    ///
    /// If `eps` is negative, NaN or infinite.
    pub fn with_eps(mut self, eps: f64) -> Self {
        self.eps = eps;
        self.checked()
    }

    /// Sets which fraction of the batch the ascent uses, above 0 and up to 1: the first gradient is
    /// taken on that part only, the second one on the whole batch. At least one sample is used.
    ///
    /// The direction of the ascent needs no whole batch, and a pass over an eighth of it costs, with
    /// some networks, an eighth; see the guide in the repository's docs for what it gains and when it
    /// pays. The best rho is larger than for the whole batch.
    ///
    /// In Burn's `Learner`, a model is then wrapped by
    #[cfg_attr(feature = "train", doc = "[`init_on_part`](Self::init_on_part),")]
    #[cfg_attr(
        not(feature = "train"),
        doc = "`init_on_part` (with the feature `train`),"
    )]
    /// which is told how to take part of a batch. In a loop of your own, take the first gradients on
    /// [`ascent_part`](Self::ascent_part) of the batch.
    ///
    /// # Panics
    ///
    /// If `fraction` is not above 0, above 1, or NaN.
    pub fn with_ascent_fraction(mut self, fraction: f64) -> Self {
        self.ascent_fraction = fraction;
        self.checked()
    }

    /// Sets how many times a step climbs, each time along the gradient where it stands, by a radius of
    /// rho: two ascents take three passes a step. 1, if not said otherwise.
    ///
    /// In a loop of your own with [`first_step`](Self::first_step), the ascents after the first one are
    /// [`Climbed::climb_on`](crate::Climbed::climb_on).
    ///
    /// # Panics
    ///
    /// If `ascents` is 0.
    ///
    /// # References
    ///
    /// `optax.contrib.sam` has it as its `sync_period`, less one; [SAM](https://arxiv.org/abs/2010.01412)
    /// tried it in its appendix C.
    pub fn with_ascents(mut self, ascents: usize) -> Self {
        self.ascents = ascents;
        self.checked()
    }

    /// Sets which way to climb.
    ///
    /// # Panics
    ///
    /// If a number of it is out of range, or it does not go with another setting.
    pub fn with_ascent(mut self, ascent: Ascent) -> Self {
        self.ascent = ascent;
        self.checked()
    }

    /// Sets how often to climb: at the first step, and then at each so-manieth. The steps between are the
    /// base optimizer's, or what [`with_between`](Self::with_between) says.
    ///
    /// # Panics
    ///
    /// If `every` is 0, or it does not go with another setting.
    pub fn with_every(mut self, every: usize) -> Self {
        self.every = every;
        self.checked()
    }

    /// Sets what the steps do that do not climb.
    ///
    /// # Panics
    ///
    /// If a number of it is out of range, or it does not go with another setting.
    pub fn with_between(mut self, between: Between) -> Self {
        self.between = between;
        self.checked()
    }

    /// Sets the step, counted from 0, from which on to climb; all before are the base optimizer's.
    ///
    /// # Panics
    ///
    /// If it does not go with another setting.
    pub fn with_start(mut self, start: usize) -> Self {
        self.start = start;
        self.checked()
    }

    /// Sets what the base optimizer gets: the gradients at w + e(w) alone, as in SAM, or combined with
    /// those at w, as in GSAM and WSAM, or limited to the length of those at w.
    ///
    /// # Panics
    ///
    /// If a number of it is out of range.
    pub fn with_descent(mut self, descent: Descent) -> Self {
        self.descent = descent;
        self.checked()
    }

    /// Sets whether biases, and the betas of normalization layers, are adaptive where the rest is: true,
    /// if not said otherwise, and false with [`asam`](Self::asam).
    ///
    /// A bias is a parameter whose path ends in `bias` or `beta`. Without
    /// [`with_adaptive`](Self::with_adaptive) it has no effect.
    pub fn with_adaptive_biases(mut self, adaptive_biases: bool) -> Self {
        self.adaptive_biases = adaptive_biases;
        self
    }

    /// The part of a batch that the ascent uses.
    pub fn ascent_part(&self) -> AscentPart {
        AscentPart::new(self.ascent_fraction)
    }

    /// Gives a group of parameters a rho of its own.
    ///
    /// Of several groups that match a parameter the last one added counts, as in
    /// [`ModuleOptimizer::with_group`](burn::optim::ModuleOptimizer::with_group). The norm is one
    /// over all groups: a rho of 0 leaves a group where it is, while its gradients still count.
    ///
    /// A group that matches no parameter of the module that climbs is an error, told at the first step.
    ///
    /// # Panics
    ///
    /// If `rho` is negative, NaN or infinite.
    pub fn with_group(mut self, group: ParamGroup, rho: f64) -> Self {
        self.groups.push(RhoGroup { group, rho });
        self.checked()
    }

    /// The radius of every parameter that no group matches.
    pub fn rho(&self) -> f64 {
        self.rho
    }

    /// How rho changes from step to step.
    pub fn radius(&self) -> Radius {
        self.radius
    }

    /// Whether the radius is relative to each weight (ASAM).
    pub fn adaptive(&self) -> bool {
        self.adaptive
    }

    /// ASAM's offset, which has an effect if [`adaptive`](Self::adaptive).
    pub fn eta(&self) -> f64 {
        self.eta
    }

    /// The stability constant that is added to the gradient norm.
    pub fn eps(&self) -> f64 {
        self.eps
    }

    /// The part of the batch that the first pass takes, above 0 and up to 1.
    pub fn ascent_fraction(&self) -> f64 {
        self.ascent_fraction
    }

    /// Whether biases are adaptive where the rest is.
    pub fn adaptive_biases(&self) -> bool {
        self.adaptive_biases
    }

    /// Which way to climb.
    pub fn ascent(&self) -> Ascent {
        self.ascent
    }

    /// Only each so-manieth step climbs.
    pub fn every(&self) -> usize {
        self.every
    }

    /// What the steps do that do not climb.
    pub fn between(&self) -> Between {
        self.between
    }

    /// The step from which on to climb.
    pub fn start(&self) -> usize {
        self.start
    }

    /// How many times a step climbs.
    pub fn ascents(&self) -> usize {
        self.ascents
    }

    /// What the base optimizer gets.
    pub fn descent(&self) -> Descent {
        self.descent
    }

    /// The groups that have a rho of their own, in the order in which they were added: of several
    /// that match a parameter the last one counts.
    pub fn groups(&self) -> impl Iterator<Item = (&ParamGroup, f64)> {
        self.groups.iter().map(|entry| (&entry.group, entry.rho))
    }

    /// SAM's steps in a loop of your own, for a method that keeps something from one step to the next:
    /// MSAM, LookSAM, F-SAM, or any that does not climb at every step. It works for all others too.
    pub fn steps<M: burn::module::Module>(&self, module: &M) -> SamSteps {
        SamSteps::new(self.clone(), module)
    }

    /// Wraps a base optimizer's rule in one that refuses to train without SAM.
    ///
    /// A loop of your own does not need it: [`first_step`](Self::first_step) works with any optimizer.
    /// See [`SamOptimizer`] for what it is good for, and for gradient clipping, which is no part of a
    /// rule.
    ///
    /// # Example
    ///
    /// ```
    /// use burn::optim::{AdamConfig, ModuleOptimizer};
    /// use burn_sam::SamConfig;
    ///
    /// let sam = SamConfig::new().optimizer(AdamConfig::new().build());
    /// let optim = ModuleOptimizer::from(sam.clone());
    /// ```
    pub fn optimizer<O: OptimizerRule>(&self, base: O) -> SamOptimizer<O> {
        SamOptimizer::new(self.clone(), base)
    }

    /// Whether a parameter's rho depends on which one it is.
    pub(crate) fn has_groups(&self) -> bool {
        !self.groups.is_empty()
    }

    /// The rho of a parameter: its last matching group's, or the general one.
    pub(crate) fn rho_of(&self, id: &ParamId, path: &str) -> f64 {
        self.groups
            .iter()
            .rev()
            .find(|entry| entry.group.matches(id, Some(path)))
            .map_or(self.rho, |entry| entry.rho)
    }

    /// Whether what a step does depends on how many there have been.
    pub(crate) fn counts_steps(&self) -> bool {
        self.every > 1
            || self.start > 0
            || matches!(self.ascent, Ascent::Friendly { .. })
            || matches!(self.radius, Radius::Raised { .. })
    }

    /// Whether the gradients at w are used for more than the ascent, which writes into them if nobody else
    /// holds them.
    pub(crate) fn keeps_first_gradients(&self) -> bool {
        match self.descent {
            Descent::Gsam { .. } | Descent::Wsam { .. } => return true,
            // Of the gradients that ASAM climbs along, the norm is another.
            Descent::Limited if self.adaptive => return true,
            Descent::Limited | Descent::Climbed => {}
        }
        matches!(self.remembers(), Some(Kind::Average | Kind::Orthogonal))
    }

    /// Whether the update depends on the gradients at w, which then must be the same for all workers.
    #[cfg(feature = "train")]
    pub(crate) fn descends_along_first_gradients(&self) -> bool {
        self.keeps_first_gradients() || self.descent == Descent::Limited
    }

    /// What is kept from step to step.
    pub(crate) fn remembers(&self) -> Option<Kind> {
        match (self.ascent, self.between) {
            (Ascent::Msam, _) => Some(Kind::Climbed),
            (Ascent::Friendly { .. }, _) => Some(Kind::Average),
            (_, Between::Looksam { .. }) => Some(Kind::Orthogonal),
            _ if matches!(
                self.descent,
                Descent::Wsam {
                    decoupled: true,
                    ..
                }
            ) =>
            {
                Some(Kind::Sharpness)
            }
            _ => None,
        }
    }

    /// ASAM's eta, if adaptive.
    pub(crate) fn adaptive_eta(&self) -> Option<f64> {
        self.adaptive.then_some(self.eta)
    }

    /// Whether a parameter's T depends on which one it is.
    pub(crate) fn spares_biases(&self) -> bool {
        self.adaptive && !self.adaptive_biases
    }

    /// Of all parameters, whichever group they are in.
    pub(crate) fn largest_rho(&self) -> f64 {
        let groups = self.groups.iter().map(|entry| entry.rho);
        groups.fold(self.rho, f64::max)
    }

    fn validate(&self) -> Result<(), String> {
        check_size("rho", self.rho)?;
        self.radius.validate(self.rho)?;
        check_size("eta", self.eta)?;
        check_size("eps", self.eps)?;
        let fraction = self.ascent_fraction;
        if !(fraction > 0.0 && fraction <= 1.0) {
            return Err(format!(
                "SamConfig: ascent_fraction is {fraction}, but must be a number above 0 and up to 1"
            ));
        }
        if self.ascents == 0 {
            return Err("SamConfig: ascents is 0, but a step climbs at least once".to_string());
        }
        if self.every == 0 {
            return Err("SamConfig: every is 0, but must be at least 1".to_string());
        }
        self.ascent.validate()?;
        self.between.validate()?;
        self.descent.validate()?;
        self.validate_together()?;
        for (index, entry) in self.groups.iter().enumerate() {
            check_size(&format!("groups[{index}].rho"), entry.rho)?;
        }
        Ok(())
    }

    /// What does not go together, and why.
    fn validate_together(&self) -> Result<(), String> {
        let looks = matches!(self.between, Between::Looksam { .. });
        let friendly = matches!(self.ascent, Ascent::Friendly { .. });
        let combines = !matches!(self.descent, Descent::Climbed | Descent::Limited);
        let refuse =
            |what: &str, why: &str| Err(format!("SamConfig: {what} do not go together: {why}"));
        match self.ascent {
            Ascent::Msam if self.every > 1 || looks || self.start > 0 => refuse(
                "ascent msam and every, between or start",
                "every step of MSAM takes one pass, and none costs more than another",
            ),
            Ascent::Msam if self.ascents > 1 || self.ascent_fraction < 1.0 => refuse(
                "ascent msam and ascents or ascent_fraction",
                "MSAM climbs along the last update and takes no gradient for it",
            ),
            Ascent::Msam if self.descent != Descent::Climbed => refuse(
                "ascent msam and a descent",
                "MSAM takes no gradient at w to combine with that at w + e(w)",
            ),
            Ascent::Msam if self.radius.is_rule() => refuse(
                "ascent msam and radius rule",
                "the rule compares the loss at w + e(w) with that at w, and MSAM takes none at w",
            ),
            _ if self.radius.is_rule() && self.start > 0 => refuse(
                "radius rule and start",
                "the rule measures from the loss of the first step, at which it has to climb; it starts with a \
                 small radius by itself",
            ),
            _ if looks && friendly => refuse(
                "between looksam and ascent friendly",
                "each keeps a vector of the weights' size from step to step, and one is the most",
            ),
            _ if friendly
                && matches!(
                    self.descent,
                    Descent::Wsam {
                        decoupled: true,
                        ..
                    }
                ) =>
            {
                refuse(
                    "ascent friendly and a decoupled descent",
                    "each hands a vector of its own to the update, and one is the most",
                )
            }
            _ if looks && combines => refuse(
                "between looksam and a descent",
                "LookSAM says itself what the base optimizer gets",
            ),
            _ => Ok(()),
        }
    }

    fn checked(self) -> Self {
        if let Err(message) = self.validate() {
            panic!("{message}");
        }
        self
    }
}

/// What the feature `train` has, for those who have not turned it on yet: it says so.
#[cfg(not(feature = "train"))]
impl SamConfig {
    #[doc(hidden)]
    pub fn init<M: crate::diagnostics::NeedsFeatureTrain>(&self, _model: M) -> ! {
        unreachable!("no type satisfies the bound")
    }

    #[doc(hidden)]
    pub fn init_on_part<M: crate::diagnostics::NeedsFeatureTrain, F>(
        &self,
        _model: M,
        _take: F,
    ) -> ! {
        unreachable!("no type satisfies the bound")
    }
}

/// That a field is a finite number of at least 0.
pub(crate) fn check_size(name: &str, value: f64) -> Result<(), String> {
    match value.is_finite() && value >= 0.0 {
        true => Ok(()),
        false => Err(format!(
            "SamConfig: {name} is {value}, but must be a finite number of at least 0"
        )),
    }
}

/// That a field is a number from 0 to below 1.
pub(crate) fn check_part(name: &str, value: f64) -> Result<(), String> {
    match (0.0..1.0).contains(&value) {
        true => Ok(()),
        false => Err(format!(
            "SamConfig: {name} is {value}, but must be a number from 0 to below 1"
        )),
    }
}

/// Equal as files: [`ParamGroup`] itself cannot be compared.
impl PartialEq for SamConfig {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

/// As JSON, like every Burn config.
impl core::fmt::Display for SamConfig {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&burn::config::config_to_json(self))
    }
}

/// A [`SamConfig`] as a file has it, before its values are checked. The numbers are optional
/// because JSON writes NaN and the infinities as null, which deserves the same answer.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Unchecked {
    rho: Option<f64>,
    radius: Radius,
    adaptive: bool,
    eta: Option<f64>,
    eps: Option<f64>,
    adaptive_biases: bool,
    ascent_fraction: Option<f64>,
    ascent: Ascent,
    ascents: usize,
    every: usize,
    between: Between,
    start: usize,
    descent: Descent,
    groups: Vec<UncheckedGroup>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UncheckedGroup {
    group: ParamGroup,
    rho: Option<f64>,
}

impl Default for Unchecked {
    fn default() -> Self {
        let config = SamConfig::default();
        Self {
            rho: Some(config.rho),
            radius: config.radius,
            adaptive: config.adaptive,
            eta: Some(config.eta),
            eps: Some(config.eps),
            adaptive_biases: config.adaptive_biases,
            ascent_fraction: Some(config.ascent_fraction),
            ascent: config.ascent,
            ascents: config.ascents,
            every: config.every,
            between: config.between,
            start: config.start,
            descent: Descent::Climbed,
            groups: Vec::new(),
        }
    }
}

impl TryFrom<Unchecked> for SamConfig {
    type Error = String;

    fn try_from(file: Unchecked) -> Result<Self, String> {
        let config = Self {
            rho: file.rho.unwrap_or(f64::NAN),
            radius: file.radius,
            adaptive: file.adaptive,
            eta: file.eta.unwrap_or(f64::NAN),
            eps: file.eps.unwrap_or(f64::NAN),
            adaptive_biases: file.adaptive_biases,
            ascent_fraction: file.ascent_fraction.unwrap_or(f64::NAN),
            ascent: file.ascent,
            ascents: file.ascents,
            every: file.every,
            between: file.between,
            start: file.start,
            descent: file.descent,
            groups: file
                .groups
                .into_iter()
                .map(|entry| RhoGroup {
                    group: entry.group,
                    rho: entry.rho.unwrap_or(f64::NAN),
                })
                .collect(),
        };
        config.validate()?;
        Ok(config)
    }
}
