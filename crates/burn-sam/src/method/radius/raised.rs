//! Rho is raised linearly over the first steps: rho_t = rho min(1, t / steps), t = 1, 2, ..

use super::law::{At, Law, Needs};

pub(super) struct Raised {
    pub(super) steps: usize,
}

impl Law for Raised {
    fn check(&self, _rho: f64) -> Result<(), String> {
        match self.steps {
            0 => Err("SamConfig: radius.raised.steps is 0, but must be at least 1".to_string()),
            _ => Ok(()),
        }
    }

    fn needs(&self) -> Needs {
        Needs {
            count: true,
            ..Needs::default()
        }
    }

    fn factor(&self, at: At) -> f64 {
        ((at.since_start + 1) as f64 / self.steps as f64).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_there_after_so_many_steps() {
        let at = |since_start| At {
            rho: 0.5,
            since_start,
            lr: None,
        };
        let factors = [0, 1, 3, 4, 9].map(|step| Raised { steps: 4 }.factor(at(step)));
        assert_eq!(factors, [0.25, 0.5, 1.0, 1.0, 1.0]);
    }
}
