//! What the examples share: the choice of a backend on the command line, and a progress bar.

mod progress;

use burn::tensor::Device;

pub use progress::{ProgressRenderer, Values};

/// The backend to run on, as a command-line option.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Backend {
    /// Burn's CPU backend.
    Flex,
    /// The CPU backend on the ndarray crate.
    Ndarray,
    /// The GPU, through Vulkan, Metal or DX12.
    #[cfg(feature = "wgpu")]
    Wgpu,
}

impl Backend {
    /// The backend's default device, without autodiff.
    pub fn device(self) -> Device {
        match self {
            Self::Flex => Device::flex(),
            // Deprecated in favour of flex, and gone from Burn 0.23.
            #[allow(deprecated)]
            Self::Ndarray => Device::ndarray(),
            #[cfg(feature = "wgpu")]
            Self::Wgpu => Device::wgpu(burn::tensor::DeviceKind::DefaultDevice),
        }
    }
}
