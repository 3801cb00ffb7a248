"""Slow, obvious oracles in NumPy, float64: networks, their Jacobians and penalties by hand, finite differences.

Nothing here imports jax or jl1, and nothing takes a derivative but by the chain rule written out or by
differences, so an error in the library cannot hide in its own oracle.
"""

import numpy as np

ACTIVATIONS = {
    "relu": lambda z: np.maximum(z, 0.0),
    "tanh": np.tanh,
    "softplus": lambda z: np.logaddexp(z, 0.0),
}

SLOPES = {
    "relu": lambda z: (z > 0).astype(float),
    "tanh": lambda z: 1.0 - np.tanh(z) ** 2,
    "softplus": lambda z: 1.0 / (1.0 + np.exp(-z)),
}


def convolve(images, kernel, *, stride, padding):
    """Cross-correlate NHWC images with an HWIO kernel by a loop over the output's pixels."""
    size, rows, columns = kernel.shape[0], images.shape[1], images.shape[2]
    if padding == "SAME":
        images = np.pad(images, ((0, 0), _same(rows, size, stride), _same(columns, size, stride), (0, 0)))
    out_rows = (images.shape[1] - size) // stride + 1
    out_columns = (images.shape[2] - size) // stride + 1
    result = np.zeros((len(images), out_rows, out_columns, kernel.shape[-1]))
    for row in range(out_rows):
        for column in range(out_columns):
            top, left = row * stride, column * stride
            window = images[:, top : top + size, left : left + size]
            result[:, row, column] = np.tensordot(window, kernel, axes=3)
    return result


def _same(length, size, stride):
    """Return the padding that gives ceil(length / stride) windows, the odd one at the end."""
    total = max((-(-length // stride) - 1) * stride + size - length, 0)
    return total // 2, total - total // 2


def linear_part(layer, kernel, values):
    """Apply a layer without its bias. A layer is None (dense) or (stride, padding)."""
    if layer is None:
        return values.reshape(len(values), -1) @ kernel
    return convolve(values, kernel, stride=layer[0], padding=layer[1])


def network(layers, params, inputs, activation="relu"):
    """Compute the logits; `params` is a list of (kernel, bias), one a layer, the last one linear."""
    values = inputs
    for layer, (kernel, bias) in zip(layers[:-1], params[:-1], strict=True):
        values = ACTIVATIONS[activation](linear_part(layer, kernel, values) + bias)
    return linear_part(layers[-1], params[-1][0], values) + params[-1][1]


def network_jacobian(layers, params, inputs, activation="relu"):
    """Compute df_i/dx_j, of shape (batch, outputs, d): push every unit vector through the chain rule."""
    tangents = np.stack([unit.reshape(inputs.shape[1:]) for unit in np.eye(inputs[0].size)])
    jacobians = []
    for example in inputs:
        value, moved = example[None], tangents
        for layer, (kernel, bias) in zip(layers[:-1], params[:-1], strict=True):
            before = linear_part(layer, kernel, value) + bias
            moved = SLOPES[activation](before) * linear_part(layer, kernel, moved)
            value = ACTIVATIONS[activation](before)
        jacobians.append(linear_part(layers[-1], params[-1][0], moved).T)
    return np.stack(jacobians)


def softmax(logits):
    """Return probabilities."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def cross_entropy(logits, targets):
    """Return -sum_i t_i log p_i, summed in a loop."""
    probs = softmax(logits)
    return np.array(
        [-sum(t * np.log(p) for t, p in zip(*row, strict=True)) for row in zip(targets, probs, strict=True)]
    )


def output_jacobian(name, logits, jacobian):
    """Turn the Jacobian of the logits into that of a function of them, by its derivative on paper."""
    probs = softmax(logits)[:, :, None]
    mean_row = (probs * jacobian).sum(axis=1, keepdims=True)
    return {
        "logits": jacobian,
        "centred_logits": jacobian - jacobian.mean(axis=1, keepdims=True),
        "probs": probs * (jacobian - mean_row),
        "log_probs": jacobian - mean_row,
    }[name]


def penalty(name, outputs, logits, jacobian, labels):
    """Return the penalty of every example from the Jacobian of its logits."""
    rows = output_jacobian(outputs, logits, jacobian)
    gradient = ((softmax(logits) - np.eye(logits.shape[1])[labels])[:, :, None] * jacobian).sum(axis=1)
    return {
        "jacobian_l1": lambda: np.abs(rows).sum(axis=(1, 2)),
        "class_sum_l1": lambda: np.abs(rows.sum(axis=1)).sum(axis=1),
        "jacobian_frobenius": lambda: (rows**2).sum(axis=(1, 2)),
        "loss_gradient_l2": lambda: (gradient**2).sum(axis=1),
        "loss_gradient_l1": lambda: np.abs(gradient).sum(axis=1),
    }[name]()


def differences(function, point, step=1e-5):
    """Return the central differences of `function` at an array, the array's axes last."""
    columns = []
    for index in np.ndindex(point.shape):
        moved = np.zeros_like(point)
        moved[index] = step
        columns.append((function(point + moved) - function(point - moved)) / (2 * step))
    return np.stack(columns, axis=-1).reshape(*np.shape(columns[0]), *point.shape)
