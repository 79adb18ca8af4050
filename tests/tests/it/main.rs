//! Integration tests over burn-sam and burn-sam-kernels.

mod ascent;
mod changes;
mod clones;
mod config;
mod flatness;
mod half_precision;
mod house;
mod kernels;
mod landscape;
mod learner;
mod methods;
mod modules;
mod numbers;
mod one_pass;
mod optimizer;
mod picture;
mod radii;
mod reference;
#[cfg(feature = "wgpu-unfused")]
mod shaders;
