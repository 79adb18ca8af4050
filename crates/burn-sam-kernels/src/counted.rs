//! What is handed over to the last of those who take it: on a device far away each operation is a message, and so is the
//! end of a tensor that no operation took.

/// An item that is cloned each time that it is taken but the last.
#[derive(Clone, Debug)]
pub(crate) struct Counted<T> {
    item: Option<T>,
    /// How often it is taken yet.
    left: usize,
}

impl<T: Clone> Counted<T> {
    /// To be taken so many times.
    pub(crate) fn new(item: T, times: usize) -> Self {
        Self {
            item: Some(item),
            left: times,
        }
    }

    /// # Panics
    ///
    /// If it was taken as often as was said.
    pub(crate) fn take(&mut self) -> T {
        self.left = self.left.saturating_sub(1);
        let taken = match self.left {
            0 => self.item.take(),
            _ => self.item.clone(),
        };
        taken.expect("taken no more often than was said")
    }
}
