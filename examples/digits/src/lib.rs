//! What the programs about digits share: the images, the networks and the training.

pub mod average;
pub mod comparison;
pub mod data;
pub mod model;
pub mod over_time;
pub mod recipe;
pub mod rivals;
pub mod training;
pub mod verdicts;
