//! Under Burn's fusion, tensors are promises: the operations are queued as they are, and run with the
//! rest of the queue, so that nobody waits.

use burn::backend::tensor::FloatTensor;
use burn::backend::{ExecutionError, Shape};
use burn::tensor::DType;
use burn_fusion::custom::{
    CustomOpIr, HandleContainer, Operation, OperationIr, StreamId, TensorIr,
};
use burn_fusion::{Fusion, FusionBackend, FusionHandle, FusionTensor};

use crate::backend::{Floats, ListBackend, NumberBackend};
use crate::formula::Program;
use crate::operation::{Reduction, Update};
use crate::portable::accumulation_dtype;

impl<B: FusionBackend + ListBackend> ListBackend for Fusion<B> {
    fn reduce(a: Floats<Self>, b: Floats<Self>, reduction: Reduction) -> FloatTensor<Self> {
        let wide = accumulation_dtype(a.0.iter().chain(&b.0).map(|tensor| tensor.dtype));
        let (name, sums) = match reduction {
            Reduction::SquaredNorm { .. } => ("burn_sam_squared_norm", 1),
            Reduction::SquaredDistance => ("burn_sam_squared_distance", 1),
            Reduction::InnerProducts => ("burn_sam_inner_products", 3),
            Reduction::Slope => ("burn_sam_slope", 2),
        };
        let count = a.0.len();
        let outputs = vec![(Shape::from([sums]), wide.into())];
        let inputs = a.0.into_iter().chain(b.0).collect();
        let queued = queue::<B>(name, inputs, outputs, move |mut inputs| {
            let b = inputs.split_off(count);
            vec![B::reduce(Floats(inputs), Floats(b), reduction)]
        });
        queued.into_iter().next().expect("one output")
    }

    fn update(
        read: Floats<Self>,
        write: Floats<Self>,
        scalars: FloatTensor<Self>,
        update: Update,
    ) -> Floats<Self> {
        let name = match update {
            Update::Perturb { .. } => "burn_sam_perturb",
            Update::Combine => "burn_sam_combine",
        };
        let count = read.0.len();
        let outputs = (write.0.iter())
            .map(|write| (write.shape.clone(), write.dtype))
            .collect();
        let inputs = (read.0.into_iter().chain(write.0))
            .chain([scalars])
            .collect();
        Floats(queue::<B>(name, inputs, outputs, move |mut inputs| {
            let scalars = inputs.pop().expect("the scalars");
            let write = inputs.split_off(count);
            B::update(Floats(inputs), Floats(write), scalars, update.clone()).0
        }))
    }
}

impl<B: FusionBackend + NumberBackend> NumberBackend for Fusion<B> {
    fn compute(tensors: Floats<Self>, constants: Vec<f64>, program: Program) -> FloatTensor<Self> {
        let dtype = tensors.0[0].dtype;
        let outputs = vec![(Shape::from([program.outputs.len()]), dtype)];
        let queued = queue::<B>("burn_sam_compute", tensors.0, outputs, move |tensors| {
            vec![B::compute(
                Floats(tensors),
                constants.clone(),
                program.clone(),
            )]
        });
        queued.into_iter().next().expect("one output")
    }
}

/// Queues `run` on the tensors' stream of operations. An input that nothing else holds is `run`'s
/// own, to write into.
fn queue<B: FusionBackend>(
    name: &'static str,
    inputs: Vec<FusionTensor<B::FusionRuntime>>,
    outputs: Vec<(Shape, DType)>,
    run: impl Fn(Vec<B::FloatTensorPrimitive>) -> Vec<B::FloatTensorPrimitive> + Send + Sync + 'static,
) -> Vec<FusionTensor<B::FusionRuntime>> {
    let client = inputs.first().expect("at least one tensor").client.clone();
    let inputs: Vec<TensorIr> = inputs.into_iter().map(FusionTensor::into_ir).collect();
    let outputs: Vec<TensorIr> = (outputs.into_iter())
        .map(|(shape, dtype)| TensorIr::uninit(client.create_empty_handle(), shape, dtype))
        .collect();
    let description = CustomOpIr::new(name, &inputs, &outputs);
    let operation = Queued::<B, _> {
        inputs,
        outputs,
        run,
        backend: core::marker::PhantomData,
    };
    client.register(
        StreamId::current(),
        OperationIr::Custom(description),
        operation,
    )
}

struct Queued<B, F> {
    inputs: Vec<TensorIr>,
    outputs: Vec<TensorIr>,
    run: F,
    backend: core::marker::PhantomData<B>,
}

impl<B, F> core::fmt::Debug for Queued<B, F> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("burn-sam")
    }
}

impl<B, F> Operation<B::FusionRuntime> for Queued<B, F>
where
    B: FusionBackend,
    F: Fn(Vec<B::FloatTensorPrimitive>) -> Vec<B::FloatTensorPrimitive> + Send + Sync,
{
    fn execute(
        &self,
        handles: &mut HandleContainer<FusionHandle<B::FusionRuntime>>,
    ) -> Result<(), ExecutionError> {
        let inputs = (self.inputs.iter())
            .map(|input| handles.get_float_tensor::<B>(input))
            .collect();
        for (output, tensor) in self.outputs.iter().zip((self.run)(inputs)) {
            handles.register_float_tensor::<B>(&output.id, tensor);
        }
        Ok(())
    }
}
