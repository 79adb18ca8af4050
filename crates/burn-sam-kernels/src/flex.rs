//! Burn's CPU backend.

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::tensor::{DType, FloatDType, TensorData, bf16, f16};

use crate::backend::{Floats, ListBackend};
use crate::cpu::{self, Slice, SliceMut, Storage};
use crate::operation::{Reduction, Update};

impl ListBackend for Flex {
    fn reduce(a: Floats<Self>, b: Floats<Self>, reduction: Reduction) -> FlexTensor {
        cpu::reduce(a.0, b.0, reduction)
    }

    fn update(
        read: Floats<Self>,
        write: Floats<Self>,
        scalars: FlexTensor,
        update: Update,
    ) -> Floats<Self> {
        Floats(cpu::update(read.0, write.0, scalars, update))
    }
}

impl Storage for FlexTensor {
    fn dtype(&self) -> DType {
        FlexTensor::dtype(self)
    }

    fn contiguous(self) -> Self {
        match self.is_contiguous() {
            true => self,
            false => self.to_contiguous(),
        }
    }

    fn slice(&self) -> Slice<'_> {
        const OF: &str = "contiguous, and of its type";
        match self.dtype() {
            DType::F64 => Slice::F64(self.as_slice().expect(OF)),
            DType::F32 => Slice::F32(self.as_slice().expect(OF)),
            DType::F16 => Slice::F16(self.as_slice().expect(OF)),
            DType::BF16 => Slice::BF16(self.as_slice().expect(OF)),
            dtype => unreachable!("no kernel for {dtype:?}"),
        }
    }

    fn slice_mut(&mut self) -> SliceMut<'_> {
        // Burn would copy all of what others hold as well, though this be a small part of it.
        if !self.is_unique() {
            *self = self.to_contiguous();
        }
        let (start, end) = self.layout().contiguous_offsets().expect("contiguous");
        match self.dtype() {
            DType::F64 => SliceMut::F64(&mut self.storage_mut::<f64>()[start..end]),
            DType::F32 => SliceMut::F32(&mut self.storage_mut::<f32>()[start..end]),
            DType::F16 => SliceMut::F16(&mut self.storage_mut::<f16>()[start..end]),
            DType::BF16 => SliceMut::BF16(&mut self.storage_mut::<bf16>()[start..end]),
            dtype => unreachable!("no kernel for {dtype:?}"),
        }
    }

    fn from_values(values: Vec<f64>, dtype: FloatDType) -> Self {
        let shape = [values.len()];
        FlexTensor::from_data(match dtype {
            FloatDType::F64 => TensorData::new(values, shape),
            _ => {
                let values: Vec<f32> = values.into_iter().map(|value| value as f32).collect();
                TensorData::new(values, shape)
            }
        })
    }
}
