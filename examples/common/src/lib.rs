//! What the examples share: the choice of a backend and of a method on the command line, a progress bar, and a
//! count of what is allocated.

mod allocations;
mod methods;
pub mod options;
mod progress;

use burn::tensor::Device;

pub use allocations::{Counting, allocated};
pub use methods::Method;
pub use progress::{ProgressRenderer, Values};

/// The backend to run on, as a command-line option.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Backend {
    /// Burn's CPU backend.
    Flex,
    /// The CPU backend on the ndarray crate.
    Ndarray,
    /// The GPU, through Vulkan, Metal or DX12 (build with `--features wgpu`).
    Wgpu,
}

/// Why there is no device.
#[derive(Debug)]
pub struct NoDevice(&'static str);

impl core::fmt::Display for NoDevice {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.0)
    }
}

impl core::error::Error for NoDevice {}

impl Backend {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Flex => "flex",
            Self::Ndarray => "ndarray",
            Self::Wgpu => "wgpu",
        }
    }

    /// The backend's default device, without autodiff.
    ///
    /// # Errors
    ///
    /// If the program is built without wgpu, or the machine has no device for it.
    pub fn device(self) -> Result<Device, NoDevice> {
        match self {
            Self::Flex => Ok(Device::flex()),
            // Deprecated in favour of flex, and gone from Burn 0.23.
            #[allow(deprecated)]
            Self::Ndarray => Ok(Device::ndarray()),
            Self::Wgpu => wgpu(),
        }
    }
}

#[cfg(feature = "wgpu-unfused")]
fn wgpu() -> Result<Device, NoDevice> {
    use burn::tensor::{DeviceKind, DeviceType};

    match Device::enumerate(DeviceType::Wgpu).into_vec().is_empty() {
        false => Ok(Device::wgpu(DeviceKind::DefaultDevice)),
        true => Err(NoDevice(
            "wgpu finds no device: is a Vulkan, Metal or DX12 driver installed?",
        )),
    }
}

#[cfg(not(feature = "wgpu-unfused"))]
fn wgpu() -> Result<Device, NoDevice> {
    Err(NoDevice(
        "this program is built without wgpu: run it with `cargo run --release -p NAME --features wgpu`",
    ))
}
