//! Compute shaders, through CubeCL: wgpu on Vulkan, Metal, DX12 and WebGPU, CUDA, ROCm.
//!
//! A launch takes as many tensors as the device can bind, for on small models the launches are what
//! costs. The norm takes two kinds: some that leave one partial sum a cube (a workgroup), and one
//! that adds these up.

mod fusion;
mod shaders;
#[cfg(feature = "wgpu")]
pub(crate) mod source;

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use burn::backend::cubecl::dtype_to_storage_type;
use burn::backend::{Shape, TensorMetadata};
use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;

use crate::backend::{AscentBackend, Floats};
use crate::portable::accumulation_dtype;
use shaders::UNITS;

/// How many launches there have been.
pub(crate) static LAUNCHES: AtomicUsize = AtomicUsize::new(0);

/// The most cubes in a dimension, should a test want fewer than the device allows.
pub(crate) static MOST_CUBES: AtomicU32 = AtomicU32::new(u32::MAX);

/// The widest vector that every device reads as one.
const VECTOR_SIZE: usize = 4;

impl AscentBackend for CubeBackend {
    fn sum_of_squares(weights: Floats<Self>, grads: Floats<Self>, eta: Option<f64>) -> CubeTensor {
        let like = grads.0.first().expect("at least one gradient");
        let (client, device) = (like.client.clone(), like.device.clone());
        let wide = DType::from(accumulation_dtype(grads.0.iter().map(|grad| grad.dtype)));
        let scalar = |value: f64| InputScalar::new(value, dtype_to_storage_type(wide));

        let mut weights = weights.0.into_iter();
        let tensors: Vec<Item> = (grads.0.into_iter())
            .map(|grad| Item::new(flat(weights.next(), grad), 0.0))
            .filter(|item| item.len > 0)
            .collect();
        let span = span(&client);
        let cubes: usize = tensors.iter().map(|item| item.cubes(span)).sum();
        let empty = |len: usize| {
            let shape = Shape::from([len]);
            empty_device_contiguous_dtype(client.clone(), device.clone(), shape, wide)
        };
        let partials = empty(cubes.max(1));

        let mut first = 0;
        let bindings = if eta.is_some() { 2 } else { 1 };
        // The partial sums and the launch's own information take a binding each.
        for launch in launches(tensors, &client, bindings, 2) {
            let cubes = launch.cubes(span);
            let dtypes = [launch.dtype, wide].map(dtype_to_storage_type);
            let (vector_size, address_type) = (launch.vector_size, launch.address_type);
            let mut lens = SequenceArg::new();
            let mut weights = SequenceArg::new();
            let mut grads = SequenceArg::new();
            for item in launch.items {
                lens.push(item.len / vector_size);
                if let Some(weight) = item.weight {
                    weights.push(buffer(weight, vector_size));
                }
                grads.push(buffer(item.grad, vector_size));
            }
            LAUNCHES.fetch_add(1, Ordering::Relaxed);
            // SAFETY: units stay within the tensors' lengths and the cubes that there are.
            unsafe {
                shaders::sums_of_squares::launch_unchecked(
                    &client,
                    cube_count(cubes, &client),
                    CubeDim::new_1d(UNITS as u32),
                    address_type,
                    vector_size,
                    weights,
                    grads,
                    lens,
                    span,
                    buffer(partials.clone(), 1),
                    first,
                    scalar(eta.unwrap_or_default()),
                    eta.is_some(),
                    dtypes,
                );
            }
            first += cubes;
        }

        let sum = empty(1);
        LAUNCHES.fetch_add(1, Ordering::Relaxed);
        // SAFETY: there are `cubes` partial sums, all of them written.
        unsafe {
            shaders::total::launch_unchecked(
                &client,
                CubeCount::new_single(),
                CubeDim::new_1d(UNITS as u32),
                partials.required_address_type(),
                buffer(partials, 1),
                cubes,
                buffer(sum.clone(), 1),
                dtype_to_storage_type(wide),
            );
        }
        sum
    }

    fn perturb(
        weights: Floats<Self>,
        grads: Floats<Self>,
        squared_norm: CubeTensor,
        rhos: Vec<f64>,
        eps: f64,
        eta: Option<f64>,
    ) -> Floats<Self> {
        let client = squared_norm.client.clone();
        let wide = squared_norm.dtype;
        let scalar = |value: f64| InputScalar::new(value, dtype_to_storage_type(wide));

        let items: Vec<Item> = (weights.0.into_iter().zip(grads.0).zip(rhos))
            .map(|((weight, grad), rho)| Item::new(flat_and_own(weight, grad), rho))
            .collect();
        let climbed = items.iter().map(|item| item.grad.clone()).collect();
        let items = items.into_iter().filter(|item| item.len > 0).collect();

        let span = span(&client);
        // The norm and the launch's own information take a binding each.
        for launch in launches(items, &client, 2, 2) {
            let cubes = launch.cubes(span);
            let dtypes = [launch.dtype, wide].map(dtype_to_storage_type);
            let (vector_size, address_type) = (launch.vector_size, launch.address_type);
            let mut lens = SequenceArg::new();
            let mut rhos = SequenceArg::new();
            let mut weights = SequenceArg::new();
            let mut grads = SequenceArg::new();
            for item in launch.items {
                lens.push(item.len / vector_size);
                rhos.push(scalar(item.rho));
                weights.push(buffer(item.weight.expect("perturbed"), vector_size));
                grads.push(buffer(item.grad, vector_size));
            }
            LAUNCHES.fetch_add(1, Ordering::Relaxed);
            // SAFETY: units stay within the tensors' lengths, and nothing else holds the gradients'
            // buffers, which are written.
            unsafe {
                shaders::perturb::launch_unchecked(
                    &client,
                    cube_count(cubes, &client),
                    CubeDim::new_1d(UNITS as u32),
                    address_type,
                    vector_size,
                    weights,
                    grads,
                    lens,
                    span,
                    rhos,
                    buffer(squared_norm.clone(), 1),
                    scalar(eps),
                    scalar(eta.unwrap_or_default()),
                    eta.is_some(),
                    dtypes,
                );
            }
        }
        Floats(climbed)
    }
}

/// A parameter in flat memory.
struct Item {
    /// `None` where it is not read.
    weight: Option<CubeTensor>,
    grad: CubeTensor,
    rho: f64,
    len: usize,
    vector_size: usize,
}

impl Item {
    fn new((weight, grad): (Option<CubeTensor>, CubeTensor), rho: f64) -> Self {
        let len = grad.shape().num_elements();
        let vector_size = match len.is_multiple_of(VECTOR_SIZE) {
            true => VECTOR_SIZE,
            false => 1,
        };
        Self {
            weight,
            grad,
            rho,
            len,
            vector_size,
        }
    }

    fn cubes(&self, span: usize) -> usize {
        self.len.div_ceil(self.vector_size * span)
    }
}

/// Both tensors so that the elements of one follow each other in memory in the same order as those
/// of the other. Tensors that are permuted in the same way already do.
fn flat(weight: Option<CubeTensor>, grad: CubeTensor) -> (Option<CubeTensor>, CubeTensor) {
    let same_order = (weight.as_ref()).is_none_or(|weight| {
        weight.meta.strides() == grad.meta.strides() && !weight.meta.is_tiled()
    });
    match same_order && is_dense(&grad) {
        true => (weight, grad),
        false => (weight.map(into_contiguous), into_contiguous(grad)),
    }
}

/// Whether the elements fill a range of memory, in any order of the dimensions.
fn is_dense(tensor: &CubeTensor) -> bool {
    if tensor.meta.is_tiled() {
        return false;
    }
    let (shape, strides) = (tensor.meta.shape(), tensor.meta.strides());
    let mut dimensions: Vec<(usize, usize)> = (strides.iter().copied())
        .zip(shape.iter().copied())
        .filter(|(_, size)| *size != 1)
        .collect();
    dimensions.sort_unstable();
    let mut expected = 1;
    dimensions.into_iter().all(|(stride, size)| {
        let fits = stride == expected;
        expected *= size;
        fits
    })
}

/// As [`flat`], with the gradient in a buffer that nothing else holds.
fn flat_and_own(weight: CubeTensor, grad: CubeTensor) -> (Option<CubeTensor>, CubeTensor) {
    let (weight, grad) = flat(Some(weight), grad);
    match grad.can_mut() {
        true => (weight, grad),
        // A copy need not keep the order of a permuted tensor.
        false => (weight.map(into_contiguous), into_contiguous(grad).copy()),
    }
}

/// The tensors of one launch: of one type, read in vectors of one size.
struct Launch {
    items: Vec<Item>,
    dtype: DType,
    vector_size: usize,
    address_type: AddressType,
}

impl Launch {
    fn cubes(&self, span: usize) -> usize {
        self.items.iter().map(|item| item.cubes(span)).sum()
    }
}

/// Spreads parameters over as few launches as the device's bindings allow, of which each tensor
/// takes `bindings` and a launch `others`.
fn launches(items: Vec<Item>, client: &Client, bindings: usize, others: usize) -> Vec<Launch> {
    let limit = client.properties().hardware.max_bindings as usize;
    let most = (limit.saturating_sub(others) / bindings).clamp(1, MOST_TENSORS);
    let mut launches: Vec<Launch> = Vec::new();
    for item in items {
        let address_type = (item.weight.as_ref())
            .map_or(AddressType::default(), CubeTensor::required_address_type)
            .max(item.grad.required_address_type());
        let open = launches.iter_mut().find(|launch| {
            launch.dtype == item.grad.dtype
                && launch.vector_size == item.vector_size
                && launch.items.len() < most
        });
        match open {
            Some(launch) => {
                launch.address_type = launch.address_type.max(address_type);
                launch.items.push(item);
            }
            None => launches.push(Launch {
                dtype: item.grad.dtype,
                vector_size: item.vector_size,
                address_type,
                items: vec![item],
            }),
        }
    }
    launches
}

/// The shaders grow with their tensors, and so does the time to compile them.
const MOST_TENSORS: usize = 32;

/// How many vectors a cube takes. Where planes are narrow, as on software drivers, few cubes run at a
/// time, and each had better do more; a GPU wants more cubes than it has cores, to hide its memory's
/// latency.
fn span(client: &Client) -> usize {
    let plane = client.properties().hardware.plane_size_max.max(1) as usize;
    UNITS * (1024 / plane).clamp(16, 128)
}

/// At least so many cubes, within the device's limit for each dimension.
fn cube_count(cubes: usize, client: &Client) -> CubeCount {
    let (most, ..) = client.properties().hardware.max_cube_count;
    let x = cubes.min(most.min(MOST_CUBES.load(Ordering::Relaxed)) as usize);
    CubeCount::Static(x as u32, cubes.div_ceil(x) as u32, 1)
}

fn buffer(tensor: CubeTensor, vector_size: usize) -> BufferArg {
    let len = tensor.meta.num_elements() / vector_size;
    // SAFETY: the length is the tensor's, whose elements are next to each other.
    unsafe { BufferArg::from_raw_parts(tensor.handle, len) }
}
