"""What a step of SAM takes in other frameworks, on the models of burn-sam's benchmarks.

Prints JSON: for each model the milliseconds of each run of

  gradient      a forward and a backward pass
  perturbation  from the gradients at w to w + e(w), and back from there to w
  update        the base optimizer's, plain SGD
  step          the whole of SAM's step, as the framework's users write it

Usage: measure.py PEER --threads N --runs N --models NAME,...

PEER is `two-steps` (PyTorch: first and second step a tensor at a time, as davda54/sam takes them),
`foreach` (PyTorch: pytorch_optimizer's SAM with foreach) or `optax` (JAX: optax.contrib.sam, compiled).
"""

import argparse
import json
import os
import time
from functools import partial

RHO = 0.05
LR = 1e-6
WARM_UP = 3
# Width, layers, batch.
PERCEPTRONS = {
    "mlp-64x30": (64, 30, 32),
    "mlp-256x16": (256, 16, 64),
    "mlp-1024x8": (1024, 8, 64),
}
# Channels, layers, the images' side, batch.
CONVOLUTIONAL = {"conv-16x4": (16, 4, 16, 128)}


def timed(f):
    start = time.perf_counter()
    result = f()
    return 1e3 * (time.perf_counter() - start), result


def measure(figures, runs):
    """Takes turns: each run measures each figure once, so that all see the same machine."""
    times = {}
    for run in range(WARM_UP + runs):
        for name, milliseconds in figures():
            if run >= WARM_UP:
                times.setdefault(name, []).append(milliseconds)
    return times


def torch_model(name):
    import torch
    from torch import nn

    if name in PERCEPTRONS:
        width, layers, batch = PERCEPTRONS[name]
        parts = [part for _ in range(layers) for part in (nn.Linear(width, width), nn.ReLU())]
        return nn.Sequential(*parts), torch.rand(batch, width)
    channels, layers, side, batch = CONVOLUTIONAL[name]
    parts = [
        part
        for _ in range(layers)
        for part in (
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
        )
    ]
    return nn.Sequential(*parts), torch.rand(batch, channels, side, side)


def with_two_steps(name, runs):
    """Each with the operations of davda54/sam, on one tensor after the other."""
    import torch

    model, x = torch_model(name)
    parameters = list(model.parameters())
    base = torch.optim.SGD(parameters, lr=LR)
    before = {}

    def backward():
        base.zero_grad()
        model(x).square().mean().backward()

    @torch.no_grad()
    def first_step():
        norms = [(1.0 * p.grad).norm(p=2) for p in parameters]
        scale = RHO / (torch.norm(torch.stack(norms), p=2) + 1e-12)
        for p in parameters:
            before[p] = p.data.clone()
            p.add_(1.0 * p.grad * scale.to(p))

    def step_back():
        for p in parameters:
            p.data = before[p]

    def step():
        backward()
        first_step()
        backward()
        step_back()
        base.step()

    def figures():
        yield "gradient", timed(backward)[0]
        first = timed(first_step)[0]
        backward()
        yield "perturbation", first + timed(step_back)[0]
        yield "update", timed(base.step)[0]
        yield "step", timed(step)[0]

    return measure(figures, runs)


def with_foreach(name, runs):
    """pytorch_optimizer's, whose second step restores and updates: what restoring takes is the rest."""
    import torch
    from pytorch_optimizer import SAM

    model, x = torch_model(name)
    sam = SAM(model.parameters(), torch.optim.SGD, rho=RHO, lr=LR, foreach=True)

    def backward():
        sam.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        return loss

    def step():
        backward()
        sam.step(backward)

    def figures():
        yield "gradient", timed(backward)[0]
        first = timed(sam.first_step)[0]
        backward()
        second = timed(sam.second_step)[0]
        update = timed(sam.base_optimizer.step)[0]
        yield "perturbation", first + second - update
        yield "update", update
        yield "step", timed(step)[0]

    return measure(figures, runs)


def with_optax(name, runs):
    """Each figure one compiled function; nothing is restored, for nothing is overwritten."""
    import jax
    import jax.numpy as jnp
    import optax

    key = jax.random.key(0)
    if name in PERCEPTRONS:
        width, layers, batch = PERCEPTRONS[name]
        bound = width**-0.5
        x = jax.random.uniform(key, (batch, width))
        parameters = [
            {
                "weight": jax.random.uniform(one, (width, width), minval=-bound, maxval=bound),
                "bias": jnp.zeros((width,)),
            }
            for one in jax.random.split(key, layers)
        ]

        def loss(parameters, statistics):
            y = x
            for layer in parameters:
                y = jax.nn.relu(y @ layer["weight"] + layer["bias"])
            return jnp.mean(y**2), statistics

        statistics = []
    else:
        channels, layers, side, batch = CONVOLUTIONAL[name]
        bound = (9 * channels) ** -0.5
        x = jax.random.uniform(key, (batch, channels, side, side))
        parameters = [
            {
                "kernel": jax.random.uniform(one, (channels, channels, 3, 3), minval=-bound, maxval=bound),
                "scale": jnp.ones((channels,)),
                "bias": jnp.zeros((channels,)),
            }
            for one in jax.random.split(key, layers)
        ]
        statistics = [(jnp.zeros((channels,)), jnp.ones((channels,))) for _ in range(layers)]

        def loss(parameters, statistics):
            y, new = x, []
            for layer, (mean, variance) in zip(parameters, statistics):
                y = jax.lax.conv_general_dilated(y, layer["kernel"], (1, 1), "SAME")
                m, v = y.mean((0, 2, 3)), y.var((0, 2, 3))
                new.append((0.9 * mean + 0.1 * m, 0.9 * variance + 0.1 * v))
                of = lambda values: values[None, :, None, None]
                y = (y - of(m)) * of(jax.lax.rsqrt(v + 1e-5) * layer["scale"]) + of(layer["bias"])
                y = jax.nn.relu(y)
            return jnp.mean(y**2), new

    base = optax.sgd(LR)
    adversary = optax.chain(optax.contrib.normalize(), optax.sgd(RHO))
    sam = optax.contrib.sam(base, adversary, opaque_mode=True)
    gradients = jax.jit(jax.grad(loss, has_aux=True))

    # What is not needed after it is given away, to be written over.
    @partial(jax.jit, donate_argnames="grads")
    def climb(parameters, grads):
        updates, _ = adversary.update(grads, adversary.init(parameters), parameters)
        return optax.apply_updates(parameters, jax.tree.map(lambda u: -u, updates))

    @partial(jax.jit, donate_argnames="parameters")
    def update(parameters, grads):
        updates, _ = base.update(grads, base.init(parameters), parameters)
        return optax.apply_updates(parameters, updates)

    @partial(jax.jit, donate_argnames=("parameters", "state", "statistics"))
    def step(parameters, state, statistics):
        grads, statistics = jax.grad(loss, has_aux=True)(parameters, statistics)
        again = lambda climbed, _: jax.grad(loss, has_aux=True)(climbed, statistics)[0]
        updates, state = sam.update(grads, state, parameters, grad_fn=again)
        return optax.apply_updates(parameters, updates), state, statistics

    state = sam.init(parameters)

    def figures():
        nonlocal parameters, state, statistics
        of = lambda f, *arguments: timed(lambda: jax.block_until_ready(f(*arguments)))
        milliseconds, (grads, _) = of(gradients, parameters, statistics)
        yield "gradient", milliseconds
        milliseconds, climbed = of(climb, parameters, grads)
        yield "perturbation", milliseconds
        grads, _ = jax.block_until_ready(gradients(climbed, statistics))
        milliseconds, parameters = of(update, parameters, grads)
        yield "update", milliseconds
        milliseconds, (parameters, state, statistics) = of(step, parameters, state, statistics)
        yield "step", milliseconds

    return measure(figures, runs)


def main():
    peers = {"two-steps": with_two_steps, "foreach": with_foreach, "optax": with_optax}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("peer", choices=peers)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--runs", type=int, required=True)
    parser.add_argument("--models", required=True)
    options = parser.parse_args()
    if options.peer == "optax":
        # JAX has as many threads as it sees cores.
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
        os.environ["JAX_PLATFORMS"] = "cpu"
    else:
        import torch

        torch.set_num_threads(options.threads)
    models = options.models.split(",")
    print(json.dumps({name: peers[options.peer](name, options.runs) for name in models}))


if __name__ == "__main__":
    main()
