#!/usr/bin/env python3
"""Trajectories of methods for which no library had one: written from the papers' equations with numpy alone, in float64.

    python3 -m venv v && v/bin/pip install numpy && v/bin/python tests/data/trajectories.py

The network, its first weights, the batches and the base optimizer are those of friendly_momentum.json.
"""
import json
import pathlib

import numpy as np

HERE = pathlib.Path(__file__).parent
EPS = 1e-12


def gradients(layers, x, y):
    """The loss (mean squared error over all outputs, tanh between layers) and its gradients."""
    activations = [x]
    for index, (weight, bias) in enumerate(layers):
        z = activations[-1] @ weight + bias
        activations.append(np.tanh(z) if index + 1 < len(layers) else z)
    difference = activations[-1] - y
    delta = 2 * difference / difference.size
    grads = []
    for index in reversed(range(len(layers))):
        grads.append((activations[index].T @ delta, delta.sum(0)))
        if index > 0:
            delta = (delta @ layers[index][0].T) * (1 - activations[index] ** 2)
    return float((difference ** 2).mean()), grads[::-1]


def flat(layers):
    return np.concatenate([part.ravel() for layer in layers for part in layer])


def like(layers, vector):
    result, start = [], 0
    for layer in layers:
        parts = []
        for part in layer:
            parts.append(vector[start : start + part.size].reshape(part.shape))
            start += part.size
        result.append(tuple(parts))
    return result


def vasso(rho, theta):
    state = {}

    def climb(g):
        d = g if "d" not in state else (1 - theta) * state["d"] + theta * g
        state["d"] = d
        return rho * d / (np.linalg.norm(d) + EPS)

    return climb


def le_sam(rho, sigma):
    return lambda g: min(sigma / np.linalg.norm(g), rho) * g / (np.linalg.norm(g) + EPS)


def run(case, climb, steps):
    base = case["base"]
    layers = [(np.array(layer["weight"]), np.array(layer["bias"])) for layer in case["init"]]
    w, buffer, record = flat(layers), None, []
    for step in range(steps):
        batch = case["batches"][step % len(case["batches"])]
        x, y = np.array(batch["x"]), np.array(batch["y"])
        loss, g = gradients(like(layers, w), x, y)
        g = flat(g)
        perturbed, h = gradients(like(layers, w + climb(g)), x, y)
        d = flat(h) + base["weight_decay"] * w
        buffer = d if buffer is None else base["momentum"] * buffer + d
        w = w - base["lr"] * buffer
        norm = float(np.linalg.norm(g))
        record.append({"loss": loss, "grad_norm": norm, "loss_perturbed": perturbed, "passes": 2})
    last = [{"weight": weight.tolist(), "bias": bias.tolist()} for weight, bias in like(layers, w)]
    return record, last


def main():
    case = json.loads((HERE / "friendly_momentum.json").read_text())
    for name, method, climb in [
        ("vasso_momentum", {"name": "vasso", "rho": 0.1, "theta": 0.4}, vasso(0.1, 0.4)),
        # Some of its steps climb by rho, and some by less.
        ("le_sam_momentum", {"name": "le_sam", "rho": 0.03, "sigma": 0.04}, le_sam(0.03, 0.04)),
    ]:
        steps, last = run(case, climb, len(case["steps"]))
        source = "tests/data/trajectories.py, from the papers' equations, numpy, float64"
        changed = {"name": name, "source": source, "method": method, "steps": steps, "final": last}
        (HERE / f"{name}.json").write_text(json.dumps({**case, **changed}) + "\n")


if __name__ == "__main__":
    main()
