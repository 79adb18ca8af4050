//! What numbers may be, and what is said of those that may not.

/// That a field is a finite number of at least 0.
pub(crate) fn size(name: &str, value: f64) -> Result<(), String> {
    refuse_unless(
        value.is_finite() && value >= 0.0,
        name,
        value,
        "a finite number of at least 0",
    )
}

/// That a field is a finite number above 0.
pub(crate) fn above_zero(name: &str, value: f64) -> Result<(), String> {
    refuse_unless(
        value.is_finite() && value > 0.0,
        name,
        value,
        "a finite number above 0",
    )
}

/// That a field is a number from 0 to below 1.
pub(crate) fn part(name: &str, value: f64) -> Result<(), String> {
    refuse_unless(
        (0.0..1.0).contains(&value),
        name,
        value,
        "a number from 0 to below 1",
    )
}

/// That a field is a number above 0 and up to 1.
pub(crate) fn fraction(name: &str, value: f64) -> Result<(), String> {
    let is_fraction = value > 0.0 && value <= 1.0;
    refuse_unless(is_fraction, name, value, "a number above 0 and up to 1")
}

fn refuse_unless(holds: bool, name: &str, value: f64, must: &str) -> Result<(), String> {
    match holds {
        true => Ok(()),
        false => Err(format!("SamConfig: {name} is {value}, but must be {must}")),
    }
}
