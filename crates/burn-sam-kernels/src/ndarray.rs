//! The CPU backend on the ndarray crate.

use burn::backend::ndarray::{NdArrayTensor, SharedArray};
use burn::backend::tensor::FloatTensor;
use burn::backend::{NdArray, TensorMetadata};
use burn::tensor::{DType, FloatDType};

use crate::backend::{Floats, ListBackend};
use crate::cpu::{self, Slice, SliceMut, Storage};
use crate::operation::{Reduction, Update};

impl ListBackend for NdArray {
    fn reduce(a: Floats<Self>, b: Floats<Self>, reduction: Reduction) -> FloatTensor<Self> {
        cpu::reduce(a.0, b.0, reduction)
    }

    fn update(
        read: Floats<Self>,
        write: Floats<Self>,
        scalars: FloatTensor<Self>,
        update: Update,
    ) -> Floats<Self> {
        Floats(cpu::update(read.0, write.0, scalars, update))
    }
}

impl Storage for NdArrayTensor {
    fn dtype(&self) -> DType {
        TensorMetadata::dtype(self)
    }

    fn contiguous(mut self) -> Self {
        match &mut self {
            Self::F64(storage) => standard(storage.ensure_owned()),
            Self::F32(storage) => standard(storage.ensure_owned()),
            tensor => unreachable!("no kernel for {:?}", Storage::dtype(tensor)),
        }
        self
    }

    fn slice(&self) -> Slice<'_> {
        match self {
            Self::F64(storage) => Slice::F64(storage.view().to_slice().expect("contiguous")),
            Self::F32(storage) => Slice::F32(storage.view().to_slice().expect("contiguous")),
            tensor => unreachable!("no kernel for {:?}", Storage::dtype(tensor)),
        }
    }

    fn slice_mut(&mut self) -> SliceMut<'_> {
        match self {
            Self::F64(storage) => SliceMut::F64(writable(storage.ensure_owned())),
            Self::F32(storage) => SliceMut::F32(writable(storage.ensure_owned())),
            tensor => unreachable!("no kernel for {:?}", Storage::dtype(tensor)),
        }
    }

    fn from_values(values: Vec<f64>, dtype: FloatDType) -> Self {
        let shape = vec![values.len()];
        match dtype {
            FloatDType::F64 => SharedArray::from_shape_vec(shape, values).map(Into::into),
            _ => {
                let values = values.into_iter().map(|value| value as f32).collect();
                SharedArray::<f32>::from_shape_vec(shape, values).map(Into::into)
            }
        }
        .expect("as many values as the shape has")
    }
}

fn standard<E: Clone>(array: &mut SharedArray<E>) {
    if !array.is_standard_layout() {
        *array = array.as_standard_layout().into_owned().into_shared();
    }
}

fn writable<E: Clone>(array: &mut SharedArray<E>) -> &mut [E] {
    array.as_slice_mut().expect("contiguous")
}
