use std::fmt;

use burn::config::Config;
use burn::module::ParamGroup;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::method::{Given, Method, OnePass, RhoGroup, settings};
use crate::part::AscentPart;
use crate::{Ascent, Between, Descent, Radius};

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
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub struct SamConfig(Method);

impl Config for SamConfig {}

impl SamConfig {
    /// The defaults of the paper: plain SAM with a rho of 0.05.
    pub fn new() -> Self {
        Self::default()
    }

    /// SAM's gain for the base optimizer's price, with nothing to choose: one pass a step, along the last update
    /// ([MSAM](Ascent::Msam)); rho [sets itself](Radius::Rule), from an estimate of the loss at w; and the gradients are
    /// [limited](Descent::Limited) to half of their usual length.
    ///
    /// Of the first 20 steps, and of each 20th after, the pass is at w; these alone update running statistics (batch
    /// normalization's), which are not those of w elsewhere. The loss must be the one whose gradients are taken, not one
    /// that is scaled before: the estimate is made of both. [`rho`](Self::with_rho) is where the radius starts, and
    /// matters little.
    ///
    /// ```
    /// use burn_sam::{Ascent, Descent, Radius, SamConfig};
    ///
    /// let auto = SamConfig::new()
    ///     .with_ascent(Ascent::Msam)
    ///     .with_radius(Radius::Rule { rise: 0.45 })
    ///     .with_descent(Descent::Limited);
    /// assert_eq!(SamConfig::auto(), auto);
    /// ```
    pub fn auto() -> Self {
        Self::default()
            .with_ascent(Ascent::Msam)
            .with_radius(Radius::Rule { rise: 0.45 })
            .with_descent(Descent::Limited)
    }

    /// The same at two passes a step, along the gradient at w: rho [sets itself](Radius::Rule), and the gradients to
    /// descend along are [limited](Descent::Limited) to the length of those at w.
    ///
    /// It gains a little more where most labels are wrong, and much more on MNIST with dropout under SGD, at twice the
    /// price. Unlike [`auto`](Self::auto) it takes a loss that is not the one that was differentiated, as a scaled one.
    pub fn auto_two_pass() -> Self {
        Self::default()
            .with_radius(Radius::Rule { rise: 0.7 })
            .with_descent(Descent::Limited)
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
        Self::default()
            .with_rho(0.5)
            .with_adaptive(true)
            .with_eta(0.01)
            .with_adaptive_biases(false)
    }

    /// Momentum SAM: one pass a step, for the price of the base optimizer's. See [`Ascent::Msam`].
    ///
    /// Rho is 2, which was best for two small networks, with 40 % of their labels wrong; it is larger than
    /// SAM's.
    pub fn msam() -> Self {
        Self::default().with_rho(2.0).with_ascent(Ascent::Msam)
    }

    /// LookSAM over the whole model: every fifth step is one of SAM's, and the steps between take one pass
    /// and reuse what that step found. See [`Between::Looksam`]. Not for a network with dropout, whose masks are others
    /// in each pass: what is reused is then mostly the masks.
    pub fn looksam() -> Self {
        Self::default()
            .with_every(5)
            .with_between(Between::Looksam { alpha: 0.5 })
    }

    /// Friendly SAM: climbs along what a batch's gradient has of its own, with the authors' sigma of 1 and
    /// lambda of 0.9. See [`Ascent::Friendly`].
    pub fn friendly() -> Self {
        Self::default().with_ascent(Ascent::Friendly {
            sigma: 1.0,
            lambda: 0.9,
        })
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
        self.0.rho = rho;
        self.checked()
    }

    /// Sets how rho changes from step to step.
    ///
    /// # Panics
    ///
    /// If a number of it is out of range, or it does not go with another setting.
    pub fn with_radius(mut self, radius: Radius) -> Self {
        self.0.radius = radius;
        self.checked()
    }

    /// Sets whether the radius is relative to each weight's magnitude
    /// ([ASAM](https://arxiv.org/abs/2102.11600)), which makes sharpness independent of how the
    /// weights are scaled.
    ///
    /// With T = |w| + eta, the norm is that of T g, and e(w) = rho T² g / (norm + eps).
    pub fn with_adaptive(mut self, adaptive: bool) -> Self {
        self.0.adaptive = adaptive;
        self.checked()
    }

    /// Sets ASAM's eta, which lets weights at zero move too. Without
    /// [`with_adaptive`](Self::with_adaptive) it has no effect.
    ///
    /// # Panics
    ///
    /// If `eta` is negative, NaN or infinite.
    pub fn with_eta(mut self, eta: f64) -> Self {
        self.0.eta = eta;
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
        self.0.eps = eps;
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
        self.0.ascent_fraction = fraction;
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
        self.0.ascents = ascents;
        self.checked()
    }

    /// Sets which way to climb.
    ///
    /// # Panics
    ///
    /// If a number of it is out of range, or it does not go with another setting.
    pub fn with_ascent(mut self, ascent: Ascent) -> Self {
        self.0.ascent = ascent;
        self.checked()
    }

    /// Sets how often to climb: at the first step, and then at each so-manieth. The steps between are the
    /// base optimizer's, or what [`with_between`](Self::with_between) says.
    ///
    /// # Panics
    ///
    /// If `every` is 0, or it does not go with another setting.
    pub fn with_every(mut self, every: usize) -> Self {
        self.0.every = every;
        self.checked()
    }

    /// Sets what the steps do that do not climb.
    ///
    /// # Panics
    ///
    /// If a number of it is out of range, or it does not go with another setting.
    pub fn with_between(mut self, between: Between) -> Self {
        self.0.between = between;
        self.checked()
    }

    /// Sets the step, counted from 0, from which on to climb; all before are the base optimizer's.
    ///
    /// # Panics
    ///
    /// If it does not go with another setting.
    pub fn with_start(mut self, start: usize) -> Self {
        self.0.start = start;
        self.checked()
    }

    /// Sets what the base optimizer gets: the gradients at w + e(w) alone, as in SAM, or combined with
    /// those at w, as in GSAM and WSAM, or limited to the length of those at w.
    ///
    /// # Panics
    ///
    /// If a number of it is out of range.
    pub fn with_descent(mut self, descent: Descent) -> Self {
        self.0.descent = descent;
        self.checked()
    }

    /// Sets whether biases, and the betas of normalization layers, are adaptive where the rest is: true,
    /// if not said otherwise, and false with [`asam`](Self::asam).
    ///
    /// A bias is a parameter whose path ends in `bias` or `beta`. Without
    /// [`with_adaptive`](Self::with_adaptive) it has no effect.
    pub fn with_adaptive_biases(mut self, adaptive_biases: bool) -> Self {
        self.0.adaptive_biases = adaptive_biases;
        self.checked()
    }

    /// The part of a batch that the ascent uses.
    pub fn ascent_part(&self) -> AscentPart {
        AscentPart::new(self.0.ascent_fraction)
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
        self.0.groups.push(RhoGroup { group, rho });
        self.checked()
    }

    /// The groups that have a rho of their own, in the order in which they were added: of several
    /// that match a parameter the last one counts.
    pub fn groups(&self) -> impl Iterator<Item = (&ParamGroup, f64)> {
        self.0.groups.iter().map(|entry| (&entry.group, entry.rho))
    }

    /// What it configures.
    pub(crate) fn method(&self) -> &Method {
        &self.0
    }

    /// A method by its name, as a file has it.
    fn preset(name: &str) -> Option<Self> {
        PRESETS
            .iter()
            .find(|(preset, _)| *preset == name)
            .map(|(_, preset)| preset())
    }

    /// What does not go together, and why.
    fn check_together(&self) -> Result<(), String> {
        let method = &self.0;
        let is_rule = method.radius.law().needs().losses;
        let looks = method.between != Between::Plain;
        let combines = !matches!(method.descent, Descent::Climbed | Descent::Limited);
        let refuse =
            |what: &str, why: &str| Err(format!("SamConfig: {what} do not go together: {why}"));
        if let Some(ascent) = method.ascent.way().one_pass() {
            let OnePass {
                file,
                name,
                instead,
                starts_level,
            } = ascent;
            let with = |others: &str| format!("ascent {file} and {others}");
            if method.every > 1 || looks || method.start > 0 {
                return refuse(
                    &with("every, between or start"),
                    &format!(
                        "every step of {name} takes one pass, and none costs more than another"
                    ),
                );
            }
            if method.ascents > 1 || method.ascent_fraction < 1.0 {
                return refuse(
                    &with("ascents or ascent_fraction"),
                    &format!("{name} {instead} and takes no gradient for it"),
                );
            }
            if combines {
                return refuse(
                    &with("a descent"),
                    &format!("{name} takes no gradient at w to combine with that at w + e(w)"),
                );
            }
            if is_rule && !starts_level {
                return refuse(
                    &with("radius rule"),
                    &format!(
                        "the rule compares the loss at w + e(w) with that at w, and {name} takes none at w"
                    ),
                );
            }
        }
        if is_rule && method.start > 0 {
            return refuse(
                "radius rule and start",
                "the rule measures from the loss of the first step, at which it has to climb; it starts with a \
                 small radius by itself",
            );
        }
        if let [one, other, ..] = method.all_kept()[..] {
            return refuse(
                "these ascent, between and descent",
                &format!(
                    "two of them keep a vector of the weights' size (sam.{} and sam.{}), and one is the most",
                    one.name, other.name
                ),
            );
        }
        if looks && combines {
            return refuse(
                "between looksam and a descent",
                "LookSAM says itself what the base optimizer gets",
            );
        }
        Ok(())
    }

    /// What has no effect, which is known when nothing more is set.
    fn check_idle(&self) -> Result<(), String> {
        match self.0.between != Between::Plain && self.0.every == 1 {
            true => Err(format!(
                "SamConfig: between is {:?}, but every is 1, so that every step climbs and there is none between: \
                 set every to 2 or more (5, as in SamConfig::looksam), or leave between out",
                self.0.between
            )),
            false => Ok(()),
        }
    }

    /// As [`check_idle`](Self::check_idle), before the first step.
    pub(crate) fn refuse_idle(&self) {
        if let Err(message) = self.check_idle() {
            panic!("{message}");
        }
    }

    fn check(&self) -> Result<(), String> {
        self.0.check()?;
        self.check_together()
    }

    fn checked(self) -> Self {
        if let Err(message) = self.check() {
            panic!("{message}");
        }
        self
    }
}

type Preset = fn() -> SamConfig;

/// The methods that have a name.
const PRESETS: [(&str, Preset); 7] = [
    ("sam", SamConfig::new),
    ("auto", SamConfig::auto),
    ("auto_two_pass", SamConfig::auto_two_pass),
    ("asam", SamConfig::asam),
    ("msam", SamConfig::msam),
    ("looksam", SamConfig::looksam),
    ("friendly", SamConfig::friendly),
];

macro_rules! getters {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $default:expr,)*) => {
        impl SamConfig {
            $($(#[$doc])* pub fn $name(&self) -> $type {
                self.0.$name
            })*
        }
    };
}
settings!(getters);

/// A preset's name, or settings: some of them, perhaps over a preset's.
impl<'de> Deserialize<'de> for SamConfig {
    fn deserialize<D: Deserializer<'de>>(file: D) -> Result<Self, D::Error> {
        #[derive(Clone, Copy)]
        struct InFile;

        impl<'de> Visitor<'de> for InFile {
            type Value = SamConfig;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a SamConfig: the name of a preset, or settings")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<SamConfig, E> {
                let presets = PRESETS.map(|(name, _)| name).join(", ");
                SamConfig::preset(name).ok_or_else(|| {
                    E::custom(format!(
                        "SamConfig: there is no preset `{name}`; there are {presets}, and other methods are settings \
                         (docs/methods.md)"
                    ))
                })
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<SamConfig, A::Error> {
                let (mut preset, mut given) = (SamConfig::new(), Given::default());
                while let Some(name) = map.next_key::<String>()? {
                    match name.as_str() {
                        "preset" => preset = self.visit_str(&map.next_value::<String>()?)?,
                        name => given.read(name, &mut map)?,
                    }
                }
                let config = SamConfig(given.over(preset.0));
                let checked = config.check().and_then(|()| config.check_idle());
                checked.map(|()| config).map_err(A::Error::custom)
            }
        }

        file.deserialize_any(InFile)
    }
}

/// Equal as files: [`ParamGroup`] itself cannot be compared.
impl PartialEq for SamConfig {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

/// As JSON, like every Burn config.
impl fmt::Display for SamConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&burn::config::config_to_json(self))
    }
}
