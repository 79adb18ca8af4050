use std::sync::Arc;

use burn_cubecl::cubecl::ir::features::{Features, TypeUsage};
use burn_cubecl::cubecl::ir::{
    DeviceIdentity, DeviceProperties, FloatKind, HardwareProperties, MemoryDeviceProperties,
    TargetProperties, UIntKind,
};
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::cubecl::profile::TimingMethod;
use burn_cubecl::cubecl::server::Handle;
use burn_cubecl::cubecl::wgpu::WgslCompiler;
use burn_cubecl::cubecl::{Compiler, CubeKernel, WgpuCompilationOptions};
use burn_fusion::custom::StreamId;
use cubecl_common::device::{DeviceId, ServiceId};

use super::shaders::{self, Direction, Sums, UNITS};
use crate::formula::{Operation, Program, Step};

/// The shaders' names and WGSL sources, for launches with so many tensors a list, in all their forms. Made
/// without a device, for the tests, which translate them for other graphics APIs.
///
/// # Arguments
///
/// * `half` - for f16 tensors, otherwise for f32 ones.
/// * `vector_size` - of a load.
pub fn wgsl(tensors: usize, half: bool, vector_size: usize) -> Vec<(String, String)> {
    let wide = ElemType::Float(FloatKind::F32);
    let dtype = if half {
        ElemType::Float(FloatKind::F16)
    } else {
        wide
    };
    let scalar = || InputScalar::new(0.5, wide);
    let (device, target) = (properties(), Arc::new(TargetProperties::default()));
    let (count, dim) = (CubeCount::new_single(), CubeDim::new_1d(UNITS as u32));
    let address = AddressType::U32;
    let lens = || (0..tensors).collect();
    const LANES: usize = 32;

    macro_rules! source {
        ($shader:ident, $($argument:expr),* $(,)?) => {
            compile(&shaders::$shader::create_dummy_kernel(
                device.clone(),
                target.clone(),
                count.clone(),
                dim,
                address,
                $($argument),*
            ))
        };
    }

    let total = source!(total, buffer(), 0, buffer(), wide);
    let compute = source!(
        compute,
        buffers(tensors),
        [scalar()].into(),
        buffer(),
        all_operations(tensors),
        wide,
    );
    let mut sources = vec![
        ("total".to_string(), total),
        ("compute".to_string(), compute),
    ];
    for sums in [
        Sums::Squares,
        Sums::ScaledSquares,
        Sums::SquaredDistance,
        Sums::Products,
        Sums::Slope,
    ] {
        let source = source!(
            partial_sums,
            vector_size,
            buffers(tensors),
            match sums {
                Sums::Squares => SequenceArg::new(),
                _ => buffers(tensors),
            },
            match sums {
                Sums::Slope => buffers(tensors),
                _ => SequenceArg::new(),
            },
            lens(),
            UNITS,
            buffer(),
            0,
            1,
            scalar(),
            sums,
            LANES,
            [dtype, wide],
        );
        sources.push((format!("partial_sums, {sums:?}"), source));
    }
    for direction in [
        Direction::Gradient,
        Direction::ScaledGradient,
        Direction::Update,
    ] {
        let source = source!(
            perturb,
            vector_size,
            buffers(tensors),
            buffers(tensors),
            lens(),
            UNITS,
            (0..tensors).map(|_| scalar()).collect(),
            buffer(),
            scalar(),
            scalar(),
            direction,
            LANES,
            [dtype, wide],
        );
        sources.push((format!("perturb, {direction:?}"), source));
    }
    for terms in [1, 2, 3] {
        let of_term = |term| match term <= terms {
            true => buffers(tensors),
            false => SequenceArg::new(),
        };
        let source = source!(
            combine,
            vector_size,
            of_term(1),
            of_term(2),
            of_term(3),
            lens(),
            UNITS,
            buffer(),
            terms,
            LANES,
            [dtype, wide],
        );
        sources.push((format!("combine, {terms} terms"), source));
    }
    sources
}

/// A program of all operations, on the first elements of so many tensors.
fn all_operations(tensors: usize) -> Program {
    let steps = Operation::ALL
        .into_iter()
        .enumerate()
        .map(|(index, operation)| Step {
            operation,
            arguments: [index, index + 1, tensors],
        });
    let steps: Vec<Step> = steps.collect();
    Program {
        elements: (0..tensors).map(|tensor| [tensor, 0]).collect(),
        constants: 1,
        outputs: vec![tensors + steps.len()],
        steps,
    }
}

fn compile(kernel: &impl CubeKernel) -> String {
    let compiled = WgslCompiler.compile(kernel.define(), &WgpuCompilationOptions::default());
    match compiled {
        Ok(shader) => shader.to_string(),
        Err(error) => panic!("{}: {error:?}", kernel.name()),
    }
}

fn buffers<C: CubePrimitive + 'static>(count: usize) -> SequenceArg<Box<[C]>> {
    (0..count).map(|_| buffer()).collect()
}

fn buffer() -> BufferArg {
    const LEN: u64 = 1024;
    let service = ServiceId::of::<()>(DeviceId::new(0, 0));
    let handle = Handle::new(service, StreamId::current(), 8 * LEN);
    // SAFETY: nothing runs on it.
    unsafe { BufferArg::from_raw_parts(handle, LEN as usize) }
}

/// As little as WGSL needs.
fn properties() -> Arc<DeviceProperties> {
    let hardware = HardwareProperties {
        load_width: 128,
        vector_register_count: None,
        plane_size_min: 32,
        plane_size_max: 32,
        max_bindings: u32::MAX,
        max_shared_memory_size: 16 * 1024,
        max_cube_count: (65_535, 65_535, 65_535),
        max_units_per_cube: 256,
        max_cube_dim: (256, 256, 64),
        num_streaming_multiprocessors: None,
        num_cpu_cores: None,
        last_level_cache_size: None,
        num_tensor_cores: None,
        min_tensor_cores_dim: None,
        max_vector_size: 4,
        cube_mma_reserved_shared_memory: 0,
    };
    let mut properties = DeviceProperties::new(
        Features::default(),
        MemoryDeviceProperties::new(1 << 30, 256),
        hardware,
        TimingMethod::System,
        DeviceIdentity::default(),
    );
    properties.register_address_type(AddressType::U32);
    for ty in [
        ElemType::Index,
        ElemType::UInt(UIntKind::U32),
        ElemType::Bool,
        ElemType::Float(FloatKind::F16),
        ElemType::Float(FloatKind::F32),
    ] {
        properties.register_type_usage(ty, TypeUsage::all());
    }
    Arc::new(properties)
}
