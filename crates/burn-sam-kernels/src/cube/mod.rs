//! Compute shaders, through CubeCL: wgpu on Vulkan, Metal, DX12 and WebGPU, CUDA, ROCm.
//!
//! A launch takes as many tensors as the device can bind, for on small models the launches are what
//! costs. Sums take two kinds: some that leave one partial sum a cube (a workgroup), and one that adds
//! these up.

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

use crate::backend::{Floats, ListBackend, NumberBackend};
use crate::formula::Program;
use crate::operation::{Along, Reduction, Update};
use crate::portable::accumulation_dtype;
use shaders::{Direction, Sums, UNITS};

/// How many launches there have been.
pub(crate) static LAUNCHES: AtomicUsize = AtomicUsize::new(0);

/// The most cubes in a dimension, should a test want fewer than the device allows.
pub(crate) static MOST_CUBES: AtomicU32 = AtomicU32::new(u32::MAX);

/// The widest vector that every device reads as one.
const VECTOR_SIZE: usize = 4;

impl ListBackend for CubeBackend {
    fn reduce(a: Floats<Self>, b: Floats<Self>, reduction: Reduction) -> CubeTensor {
        let like = a.0.first().expect("at least one tensor");
        let (client, device) = (like.client.clone(), like.device.clone());
        let dtypes = a.0.iter().chain(&b.0).map(|tensor| tensor.dtype);
        let wide = DType::from(accumulation_dtype(dtypes));
        let (sums, count, eta) = match reduction {
            Reduction::SquaredNorm { eta: None } => (Sums::Squares, 1, 0.0),
            Reduction::SquaredNorm { eta: Some(eta) } => (Sums::ScaledSquares, 1, eta),
            Reduction::SquaredDistance => (Sums::SquaredDistance, 1, 0.0),
            Reduction::InnerProducts => (Sums::Products, 3, 0.0),
            Reduction::Slope => (Sums::Slope, 2, 0.0),
        };

        let others = a.0.len();
        let items: Vec<Item> = (a.0.into_iter().enumerate())
            .map(|(index, a)| {
                let others = b.0.iter().skip(index).step_by(others).cloned();
                Item::new(flat([a].into_iter().chain(others).collect()), 0.0)
            })
            .collect();
        let lists = items[0].tensors.len();
        let items: Vec<Item> = items.into_iter().filter(|item| item.len > 0).collect();
        let (span, lanes) = (span(&client), lanes(&client));
        let cubes: usize = items.iter().map(|item| item.cubes(span)).sum();
        let empty = |len: usize| {
            let shape = Shape::from([len]);
            empty_device_contiguous_dtype(client.clone(), device.clone(), shape, wide)
        };
        let partials = empty((count * cubes).max(1));

        let mut first = 0;
        // The partial sums and the launch's own information take a binding each.
        for launch in launches(items, lists, &client, 2) {
            let (lens, [a, b, c]) = launch.lists();
            // SAFETY: units stay within the tensors' lengths and the cubes that there are.
            unsafe {
                shaders::partial_sums::launch_unchecked(
                    &client,
                    cube_count(launch.cubes(span), &client),
                    CubeDim::new_1d(UNITS as u32),
                    launch.address_type,
                    launch.vector_size,
                    a,
                    b,
                    c,
                    lens,
                    span,
                    buffer(partials.clone(), 1),
                    first,
                    cubes,
                    scalar(eta, wide),
                    sums,
                    lanes,
                    launch.dtypes(wide),
                );
            }
            first += launch.cubes(span);
        }

        let sum = empty(count);
        LAUNCHES.fetch_add(1, Ordering::Relaxed);
        // SAFETY: there are `cubes` partial sums of each, all of them written.
        unsafe {
            shaders::total::launch_unchecked(
                &client,
                CubeCount::Static(count as u32, 1, 1),
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

    fn update(
        read: Floats<Self>,
        write: Floats<Self>,
        scalars: CubeTensor,
        update: Update,
    ) -> Floats<Self> {
        let client = scalars.client.clone();
        let wide = scalars.dtype;
        let count = write.0.len();
        let lists = 1 + read.0.len() / count;
        let rhos = match &update {
            Update::Perturb { rhos, .. } => rhos.clone(),
            Update::Combine => vec![0.0; count],
        };
        let items: Vec<Item> = (write.0.into_iter().zip(rhos).enumerate())
            .map(|(index, (write, rho))| {
                let others = read.0.iter().skip(index).step_by(count).cloned();
                Item::new(
                    flat_and_own([write].into_iter().chain(others).collect()),
                    rho,
                )
            })
            .collect();
        drop(read);
        let written = items.iter().map(|item| item.tensors[0].clone()).collect();
        let items: Vec<Item> = items.into_iter().filter(|item| item.len > 0).collect();

        let (span, lanes) = (span(&client), lanes(&client));
        // The scalars and the launch's own information take a binding each.
        for launch in launches(items, lists, &client, 2) {
            let cubes = cube_count(launch.cubes(span), &client);
            let dim = CubeDim::new_1d(UNITS as u32);
            let scalars = buffer(scalars.clone(), 1);
            match &update {
                // SAFETY: units stay within the tensors' lengths, and nothing else holds the buffers that
                // are written.
                Update::Perturb { eps, along, .. } => unsafe {
                    let (lens, [write, read, _]) = launch.lists();
                    let eta = match along {
                        Along::Gradient { eta } => eta.unwrap_or_default(),
                        Along::Update => 0.0,
                    };
                    shaders::perturb::launch_unchecked(
                        &client,
                        cubes,
                        dim,
                        launch.address_type,
                        launch.vector_size,
                        read,
                        write,
                        lens,
                        span,
                        launch.rhos(wide),
                        scalars,
                        scalar(*eps, wide),
                        scalar(eta, wide),
                        Direction::from(*along),
                        lanes,
                        launch.dtypes(wide),
                    );
                },
                // SAFETY: as above.
                Update::Combine => unsafe {
                    let (lens, [a, b, c]) = launch.lists();
                    shaders::combine::launch_unchecked(
                        &client,
                        cubes,
                        dim,
                        launch.address_type,
                        launch.vector_size,
                        a,
                        b,
                        c,
                        lens,
                        span,
                        scalars,
                        lists,
                        lanes,
                        launch.dtypes(wide),
                    );
                },
            }
        }
        Floats(written)
    }
}

impl NumberBackend for CubeBackend {
    fn compute(tensors: Floats<Self>, constants: Vec<f64>, program: Program) -> CubeTensor {
        let like = &tensors.0[0];
        let (client, dtype) = (like.client.clone(), like.dtype);
        let shape = Shape::from([program.outputs.len()]);
        let made = empty_device_contiguous_dtype(client.clone(), like.device.clone(), shape, dtype);
        let tensors = tensors.0.into_iter().map(into_contiguous);
        let tensors = tensors.map(|tensor| buffer(tensor, 1)).collect();
        let constants = constants.into_iter().map(|value| scalar(value, dtype));
        LAUNCHES.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the program's elements are within their tensors, and its outputs are as many as the buffer has.
        unsafe {
            shaders::compute::launch_unchecked(
                &client,
                CubeCount::new_single(),
                CubeDim::new_single(),
                AddressType::default(),
                tensors,
                constants.collect(),
                buffer(made.clone(), 1),
                program,
                dtype_to_storage_type(dtype),
            );
        }
        made
    }
}

/// The tensors of one index, in flat memory.
struct Item {
    /// One of each list; what is written comes first.
    tensors: Vec<CubeTensor>,
    rho: f64,
    len: usize,
    vector_size: usize,
}

impl Item {
    fn new(tensors: Vec<CubeTensor>, rho: f64) -> Self {
        let len = tensors[0].shape().num_elements();
        let vector_size = match len.is_multiple_of(VECTOR_SIZE) {
            true => VECTOR_SIZE,
            false => 1,
        };
        Self {
            tensors,
            rho,
            len,
            vector_size,
        }
    }

    fn cubes(&self, span: usize) -> usize {
        self.len.div_ceil(self.vector_size * span)
    }
}

/// The tensors so that the elements of one follow each other in memory in the same order as those of the
/// others. Tensors that are permuted in the same way already do.
fn flat(tensors: Vec<CubeTensor>) -> Vec<CubeTensor> {
    let (first, others) = tensors.split_first().expect("at least one tensor");
    let same_order = (others.iter())
        .all(|other| other.meta.strides() == first.meta.strides() && !other.meta.is_tiled());
    match same_order && is_dense(first) {
        true => tensors,
        false => tensors.into_iter().map(into_contiguous).collect(),
    }
}

/// As [`flat`], with the first in a buffer that nothing else holds.
fn flat_and_own(tensors: Vec<CubeTensor>) -> Vec<CubeTensor> {
    let mut tensors = flat(tensors);
    if !tensors[0].can_mut() {
        // A copy need not keep the order of a permuted tensor.
        tensors = tensors.into_iter().map(into_contiguous).collect();
        tensors[0] = tensors[0].copy();
    }
    tensors
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

/// The tensors of one launch: of one type, read in vectors of one size.
struct Launch {
    items: Vec<Item>,
    dtype: DType,
    vector_size: usize,
    address_type: AddressType,
}

/// The buffers of a list, in vectors of C.
type List<C> = SequenceArg<Box<[C]>>;

impl Launch {
    fn cubes(&self, span: usize) -> usize {
        self.items.iter().map(|item| item.cubes(span)).sum()
    }

    /// Of the tensors, and of what is computed.
    fn dtypes(&self, wide: DType) -> [ElemType; 2] {
        [self.dtype, wide].map(dtype_to_storage_type)
    }

    /// The tensors' lengths, in vectors, and the buffers of each list; a list that is not there is empty.
    /// For one launch, which is counted.
    fn lists<C: CubePrimitive>(&self) -> (SequenceArg<usize>, [List<C>; 3]) {
        LAUNCHES.fetch_add(1, Ordering::Relaxed);
        let mut lens = SequenceArg::new();
        let mut lists = [(); 3].map(|()| SequenceArg::new());
        for item in &self.items {
            lens.push(item.len / self.vector_size);
            for (list, tensor) in lists.iter_mut().zip(&item.tensors) {
                list.push(buffer(tensor.clone(), self.vector_size));
            }
        }
        (lens, lists)
    }

    fn rhos(&self, wide: DType) -> SequenceArg<InputScalar> {
        let mut rhos = SequenceArg::new();
        for item in &self.items {
            rhos.push(scalar(item.rho, wide));
        }
        rhos
    }
}

/// Spreads the tensors over as few launches as the device's bindings allow, of which each list takes one for
/// each tensor, and a launch takes `others`.
fn launches(items: Vec<Item>, lists: usize, client: &Client, others: usize) -> Vec<Launch> {
    let limit = client.properties().hardware.max_bindings as usize;
    let most = (limit.saturating_sub(others) / lists).clamp(1, MOST_TENSORS);
    let mut launches: Vec<Launch> = Vec::new();
    for item in items {
        let address_types = item.tensors.iter().map(CubeTensor::required_address_type);
        let address_type = address_types.fold(AddressType::default(), AddressType::max);
        let dtype = item.tensors[0].dtype;
        let open = launches.iter_mut().find(|launch| {
            launch.dtype == dtype
                && launch.vector_size == item.vector_size
                && launch.items.len() < most
        });
        match open {
            Some(launch) => {
                launch.address_type = launch.address_type.max(address_type);
                launch.items.push(item);
            }
            None => launches.push(Launch {
                dtype,
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

/// How many units go side by side: a plane's.
fn lanes(client: &Client) -> usize {
    let plane = client.properties().hardware.plane_size_max.max(1) as usize;
    plane.next_power_of_two().min(UNITS)
}

/// At least so many cubes, within the device's limit for each dimension.
fn cube_count(cubes: usize, client: &Client) -> CubeCount {
    let (most, ..) = client.properties().hardware.max_cube_count;
    let x = cubes.min(most.min(MOST_CUBES.load(Ordering::Relaxed)) as usize);
    CubeCount::Static(x as u32, cubes.div_ceil(x) as u32, 1)
}

fn scalar(value: f64, dtype: DType) -> InputScalar {
    InputScalar::new(value, dtype_to_storage_type(dtype))
}

fn buffer(tensor: CubeTensor, vector_size: usize) -> BufferArg {
    let len = tensor.meta.num_elements() / vector_size;
    // SAFETY: the length is the tensor's, whose elements are next to each other.
    unsafe { BufferArg::from_raw_parts(tensor.handle, len) }
}
