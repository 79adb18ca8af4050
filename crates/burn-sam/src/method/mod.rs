//! A method: its settings, each written once, and its parts, each in a file.
//!
//! Four kinds of parts make a method: which way to climb, how far, what the base optimizer gets, and what the steps
//! between climbs do. A part says what it needs, what it keeps and what it makes of vectors; it knows neither modules
//! nor the other parts.

mod ascent;
mod between;
mod check;
mod descent;
mod keep;
mod number;
mod radius;

use burn::module::{ParamGroup, ParamId};
use burn_sam_kernels::Vector;
use serde::de::{Error, MapAccess};
use serde::{Deserialize, Deserializer, Serialize};

pub use ascent::Ascent;
pub(crate) use ascent::{Direction, From, OnePass};
pub use between::Between;
pub use descent::Descent;
pub(crate) use descent::{Alone, Of};
pub(crate) use keep::{How, Keep};
pub(crate) use number::{beside, tensor_like};
pub use radius::Radius;
pub(crate) use radius::{At, Factor, Needs, Pace, Seen};

/// The settings: what each is, its name, its type and its default.
macro_rules! settings {
    ($generate:ident) => {
        $generate! {
            /// The radius of every parameter that no group matches, in the units of the weights.
            rho: f64 = 0.05,
            /// How rho changes from step to step.
            radius: $crate::Radius = $crate::Radius::Constant,
            /// Whether the radius is relative to each weight (ASAM).
            adaptive: bool = false,
            /// ASAM's offset, which has an effect if [`adaptive`](Self::adaptive).
            eta: f64 = 0.0,
            /// The stability constant that is added to the gradient norm.
            eps: f64 = 1e-12,
            /// Whether biases are adaptive where the rest is.
            adaptive_biases: bool = true,
            /// The part of the batch that the first pass takes, above 0 and up to 1.
            ascent_fraction: f64 = 1.0,
            /// Which way to climb.
            ascent: $crate::Ascent = $crate::Ascent::Gradient,
            /// How many times a step climbs.
            ascents: usize = 1,
            /// Only each so-manieth step climbs.
            every: usize = 1,
            /// What the steps do that do not climb.
            between: $crate::Between = $crate::Between::Plain,
            /// The step from which on to climb.
            start: usize = 0,
            /// What the base optimizer gets.
            descent: $crate::Descent = $crate::Descent::Climbed,
        }
    };
}
pub(crate) use settings;

macro_rules! method {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $default:expr,)*) => {
        /// The settings of a method.
        #[derive(Clone, Debug, Serialize)]
        pub(crate) struct Method {
            $($(#[$doc])* pub(crate) $name: $type,)*
            /// Parameters that have a rho of their own. Of several that match one, the last one counts.
            pub(crate) groups: Vec<RhoGroup>,
        }

        impl Default for Method {
            fn default() -> Self {
                Self {
                    $($name: $default,)*
                    groups: Vec::new(),
                }
            }
        }

        impl Method {
            /// The settings that are not the default, as a reader of a summary wants them.
            #[cfg(feature = "train")]
            pub(crate) fn unusual(&self) -> Vec<(String, String)> {
                let default = Self::default();
                let mut unusual = Vec::new();
                $(if self.$name != default.$name {
                    let name = stringify!($name).replace('_', " ");
                    unusual.push((name, format!("{:?}", self.$name)));
                })*
                unusual.extend(self.groups.iter().map(|entry| {
                    (format!("rho of {:?}", entry.group), format!("{:?}", entry.rho))
                }));
                unusual
            }
        }

        /// Settings as a file has them: some of them.
        #[derive(Default)]
        pub(crate) struct Given {
            $($name: Option<$type>,)*
            groups: Option<Vec<RhoGroup>>,
        }

        impl Given {
            /// Reads the field of a name.
            pub(crate) fn read<'de, A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
                match name {
                    $(stringify!($name) if self.$name.is_some() => return Err(Error::duplicate_field(stringify!($name))),)*
                    $(stringify!($name) => self.$name = Some(number_or_null(name, map)?),)*
                    "groups" => self.groups = Some(map.next_value().map_err(|error| named(name, error))?),
                    _ => {
                        let known = &["preset", $(stringify!($name),)* "groups"];
                        return Err(Error::unknown_field(name, known));
                    }
                }
                Ok(())
            }
        }

        impl Given {
            /// These, and the others as they are in a method.
            pub(crate) fn over(self, method: Method) -> Method {
                Method {
                    $($name: self.$name.unwrap_or(method.$name),)*
                    groups: self.groups.unwrap_or(method.groups),
                }
            }
        }
    };
}
settings!(method);

/// The parameters of `group` climb with `rho`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RhoGroup {
    pub(crate) group: ParamGroup,
    #[serde(deserialize_with = "value")]
    pub(crate) rho: f64,
}

/// A value that a file may write as null, as JSON writes NaN and the infinities: they deserve the same answer.
trait FromFile: Sized {
    fn null() -> Option<Self> {
        None
    }
}

impl FromFile for f64 {
    fn null() -> Option<Self> {
        Some(Self::NAN)
    }
}

impl FromFile for bool {}
impl FromFile for usize {}
impl FromFile for Ascent {}
impl FromFile for Between {}
impl FromFile for Descent {}
impl FromFile for Radius {}

fn number_or_null<'de, A: MapAccess<'de>, T: FromFile + Deserialize<'de>>(
    name: &str,
    map: &mut A,
) -> Result<T, A::Error> {
    let value: Option<T> = map.next_value().map_err(|error| named(name, error))?;
    value
        .or_else(T::null)
        .ok_or_else(|| Error::custom(format!("SamConfig: {name} is null, but must be a value")))
}

fn value<'de, D: Deserializer<'de>>(file: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(file)?.unwrap_or(f64::NAN))
}

/// An error with the field that it is of.
fn named<E: Error>(name: &str, error: E) -> E {
    E::custom(format!(
        "SamConfig: {name}: {error} (docs/methods.md has what a file may say)"
    ))
}

impl Method {
    /// Each setting by itself.
    pub(crate) fn check(&self) -> Result<(), String> {
        check::size("rho", self.rho)?;
        self.radius.law().check(self.rho)?;
        check::size("eta", self.eta)?;
        check::size("eps", self.eps)?;
        check::fraction("ascent_fraction", self.ascent_fraction)?;
        if self.ascents == 0 {
            return Err("SamConfig: ascents is 0, but a step climbs at least once".to_string());
        }
        if self.every == 0 {
            return Err("SamConfig: every is 0, but must be at least 1".to_string());
        }
        self.ascent.way().check()?;
        self.between.way().check()?;
        self.descent.way().check()?;
        for (index, entry) in self.groups.iter().enumerate() {
            check::size(&format!("groups[{index}].rho"), entry.rho)?;
        }
        Ok(())
    }

    /// The vectors that the parts want to keep from step to step. One is the most that a method has.
    pub(crate) fn all_kept(&self) -> Vec<Keep> {
        [
            self.ascent.way().keeps(),
            self.between.way().keeps(),
            self.descent.way().keeps(),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// The vector that is kept from step to step.
    pub(crate) fn keeps(&self) -> Option<Keep> {
        self.all_kept().first().copied()
    }

    /// What it has to know of the training, beside the vector.
    pub(crate) fn needs(&self) -> Needs {
        let needs = self.radius.law().needs();
        let is_mean = (self.keeps()).is_some_and(|keep| matches!(keep.how, How::Mean { .. }));
        Needs {
            count: needs.count || is_mean || self.every > 1 || self.start > 0 || self.may_look(),
            ..needs
        }
    }

    /// Whether a step that climbs takes the gradient at w, and so two passes.
    pub(crate) fn takes_gradient(&self) -> bool {
        self.ascent.way().one_pass().is_none()
    }

    /// Whether the step after so many updates climbs.
    pub(crate) fn climbs_at(&self, count: usize) -> bool {
        let since_start = count.checked_sub(self.start);
        let is_due = since_start.is_some_and(|steps| steps.is_multiple_of(self.every));
        // The first step, of a method that takes no gradient at w, is there all the same.
        is_due && (count == 0 || !self.may_look() || !self.radius.law().looks(count))
    }

    /// Whether some steps stay at w because no other takes a gradient there.
    pub(crate) fn may_look(&self) -> bool {
        !self.takes_gradient() && self.radius.law().needs().losses
    }

    /// Whether the gradients at w are used for more than the ascent, which writes into them if nobody else
    /// holds them.
    pub(crate) fn keeps_first_gradients(&self) -> bool {
        match self.descent.way().of() {
            Of::Both(_) => true,
            // Of the gradients that ASAM climbs along, the norm is another.
            Of::Lengths(_) if self.adaptive => true,
            Of::Lengths(_) | Of::Climbed => {
                // What a step reports is made of them.
                (self.keeps()).is_some_and(|keep| keep.how != How::Before)
            }
        }
    }

    /// Whether the update depends on the gradients at w, which then must be the same for all workers.
    #[cfg(feature = "train")]
    pub(crate) fn descends_along_first_gradients(&self) -> bool {
        self.keeps_first_gradients() || !matches!(self.descent.way().of(), Of::Climbed)
    }

    /// What is made of gradients of which there are none at w, if anything is.
    pub(crate) fn alone(&self) -> Option<Alone> {
        let is_one_pass = !self.takes_gradient();
        self.descent.way().alone().filter(|_| is_one_pass)
    }

    /// What a step that climbed finds out for the steps after, of the gradients g at w and h at w + e(w).
    pub(crate) fn report(&self, g: &Vector, h: &Vector) -> Option<Vector> {
        let of_ascent = self.ascent.way().report(g);
        of_ascent
            .or_else(|| self.between.way().report(g, h))
            .or_else(|| self.descent.way().report(g, h))
    }

    /// ASAM's eta, if adaptive.
    pub(crate) fn adaptive_eta(&self) -> Option<f64> {
        self.adaptive.then_some(self.eta)
    }

    /// Whether a parameter's T depends on which one it is.
    pub(crate) fn spares_biases(&self) -> bool {
        self.adaptive && !self.adaptive_biases
    }

    /// Whether it has to know the parameters' paths.
    pub(crate) fn needs_paths(&self) -> bool {
        !self.groups.is_empty() || self.spares_biases()
    }

    /// The rho of a parameter: its last matching group's, or the general one.
    pub(crate) fn rho_of(&self, id: ParamId, path: &str) -> f64 {
        let mut groups = self.groups.iter().rev();
        groups
            .find(|entry| entry.group.matches(&id, Some(path)))
            .map_or(self.rho, |entry| entry.rho)
    }

    /// Of all parameters, whichever group they are in.
    pub(crate) fn largest_rho(&self) -> f64 {
        let groups = self.groups.iter().map(|entry| entry.rho);
        groups.fold(self.rho, f64::max)
    }

    /// How the training climbs.
    pub(crate) fn pace(&self) -> Pace {
        Pace {
            every_step: self.every == 1,
            adaptive: self.adaptive,
            one_pass: !self.takes_gradient(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use burn::tensor::{DType, Device, Tensor, TensorData};
    use burn_sam_kernels::internals::WithoutKernels;
    use burn_sam_kernels::{Number, Part, Vector};

    /// Values of shape `[values]`, in f64.
    pub(crate) fn numbers(values: &[f64]) -> Tensor<1> {
        let data = TensorData::new(values.to_vec(), [values.len()]);
        Tensor::from_data(data, (&Device::flex(), DType::F64))
    }

    /// Where a number can be: the host's, and a device's.
    pub(crate) const PLACES: [fn(f64) -> Number; 2] = [Number::from, |value| {
        let _on_device = WithoutKernels::new();
        Number::from(numbers(&[value]))
    }];

    /// A vector of one parameter.
    pub(crate) fn vector(values: &[f64]) -> Vector {
        [Part::new(0, numbers(values))].into_iter().collect()
    }

    pub(crate) fn values(vector: &Vector) -> Vec<f64> {
        let part = vector.iter().next().unwrap().clone();
        part.flat().into_data().iter().collect()
    }
}
