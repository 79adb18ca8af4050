//! Under Burn's fusion, tensors are promises: the operations are queued as they are, and run with the
//! rest of the queue, so that nobody waits.

use burn::backend::tensor::FloatTensor;
use burn::backend::{ExecutionError, Shape};
use burn::tensor::DType;
use burn_fusion::custom::{
    CustomOpIr, HandleContainer, Operation, OperationIr, StreamId, TensorIr,
};
use burn_fusion::{Fusion, FusionBackend, FusionHandle, FusionTensor};

use crate::backend::{AscentBackend, Floats};
use crate::portable::accumulation_dtype;

impl<B: FusionBackend + AscentBackend> AscentBackend for Fusion<B> {
    fn sum_of_squares(
        weights: Floats<Self>,
        grads: Floats<Self>,
        eta: Option<f64>,
    ) -> FloatTensor<Self> {
        let wide = accumulation_dtype(grads.0.iter().map(|grad| grad.dtype));
        let (weights, grads) = (weights.0, grads.0);
        let count = weights.len();
        let outputs = vec![(Shape::from([1]), wide.into())];
        let inputs = weights.into_iter().chain(grads).collect();
        let queued = queue::<B>(
            "burn_sam_sum_of_squares",
            inputs,
            outputs,
            move |mut inputs| {
                let grads = inputs.split_off(count);
                vec![B::sum_of_squares(Floats(inputs), Floats(grads), eta)]
            },
        );
        queued.into_iter().next().expect("one output")
    }

    fn perturb(
        weights: Floats<Self>,
        grads: Floats<Self>,
        squared_norm: FloatTensor<Self>,
        rhos: Vec<f64>,
        eps: f64,
        eta: Option<f64>,
    ) -> Floats<Self> {
        let (weights, grads) = (weights.0, grads.0);
        let count = weights.len();
        let outputs = (weights.iter())
            .map(|weight| (weight.shape.clone(), weight.dtype))
            .collect();
        let inputs = (weights.into_iter().chain(grads))
            .chain([squared_norm])
            .collect();
        Floats(queue::<B>(
            "burn_sam_perturb",
            inputs,
            outputs,
            move |mut inputs| {
                let norm = inputs.pop().expect("the squared norm");
                let grads = inputs.split_off(count);
                B::perturb(Floats(inputs), Floats(grads), norm, rhos.clone(), eps, eta).0
            },
        ))
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
