//! What is done with numbers. A flag is a number too, 1 or 0.

/// An operation on up to three numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Operation {
    Add,
    Sub,
    Mul,
    Div,
    Sqrt,
    /// The first to the power of the second.
    Powf,
    /// The first, no less than the second and no more than the third.
    Clamp,
    /// Of the flag that comes first: the second where it is true, and the third elsewhere.
    Select,
    Less,
    LessEqual,
    Equal,
    IsNan,
    IsNotFinite,
    Or,
    And,
    Not,
}

impl Operation {
    #[cfg(feature = "wgpu")]
    pub(crate) const ALL: [Self; 16] = [
        Self::Add,
        Self::Sub,
        Self::Mul,
        Self::Div,
        Self::Sqrt,
        Self::Powf,
        Self::Clamp,
        Self::Select,
        Self::Less,
        Self::LessEqual,
        Self::Equal,
        Self::IsNan,
        Self::IsNotFinite,
        Self::Or,
        Self::And,
        Self::Not,
    ];

    /// How many numbers it takes.
    pub(crate) fn arguments(self) -> usize {
        match self {
            Self::Sqrt | Self::IsNan | Self::IsNotFinite | Self::Not => 1,
            Self::Clamp | Self::Select => 3,
            _ => 2,
        }
    }

    pub(crate) fn makes_flag(self) -> bool {
        !matches!(
            self,
            Self::Add
                | Self::Sub
                | Self::Mul
                | Self::Div
                | Self::Sqrt
                | Self::Powf
                | Self::Clamp
                | Self::Select
        )
    }

    /// On the host. Those that it does not take may be anything.
    pub(crate) fn on_host(self, [x, y, z]: [f64; 3]) -> f64 {
        let is = |flag: f64| flag != 0.0;
        match self {
            Self::Add => x + y,
            Self::Sub => x - y,
            Self::Mul => x * y,
            Self::Div => x / y,
            Self::Sqrt => x.sqrt(),
            Self::Powf => x.powf(y),
            Self::Clamp => x.clamp(y, z),
            Self::Select => match is(x) {
                true => y,
                false => z,
            },
            Self::Less => f64::from(x < y),
            Self::LessEqual => f64::from(x <= y),
            Self::Equal => f64::from(x == y),
            Self::IsNan => f64::from(x.is_nan()),
            Self::IsNotFinite => f64::from(!x.is_finite()),
            Self::Or => f64::from(is(x) || is(y)),
            Self::And => f64::from(is(x) && is(y)),
            Self::Not => f64::from(!is(x)),
        }
    }
}
