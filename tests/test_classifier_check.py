"""The check of a classifier: what passes, what is refused with which reason, and what it compiles."""

import jax
import jax.numpy as jnp
import pytest

from jl1.classifier_check import check_classifier


def linear(inputs):
    return inputs @ jnp.array([[1.0, -2.0, 3.0], [0.5, 4.0, -1.0]])


POINTS = jnp.array([[0.0, 0.5], [1.0, 0.25], [0.75, 0.5]])


@pytest.mark.parametrize("logits_fn", [linear, lambda x: 0 * linear(x), lambda x: 100 * linear(x), jnp.log])
def test_a_sound_classifier_passes(logits_fn):
    points = POINTS + 0.01 if logits_fn is jnp.log else POINTS
    check_classifier(logits_fn, jnp.minimum(points, 1.0))


@pytest.mark.parametrize(
    ("logits_fn", "inputs", "message"),
    [
        (linear, POINTS * 255, r"inputs lie in \[0, 255\]: they must lie in \[0, 1\]; divide bytes by 255"),
        (linear, POINTS - 0.5, r"inputs lie in \[-0.5, 0.5\]: .*normalisation into the network"),
        (linear, POINTS.at[0, 0].set(jnp.nan), r"inputs lie in \[nan, nan\]"),
        (lambda x: linear(x)[:, 0], POINTS, r"maps \(3, 2\) to \(3,\): one row of logits an example"),
        (lambda x: linear(x)[None], POINTS, r"maps \(3, 2\) to \(1, 3, 3\): one row of logits an example"),
        (lambda x: linear(x)[:1], POINTS, r"maps \(3, 2\) to \(1, 3\): one row of logits an example"),
        (lambda x: jnp.log(linear(x)), POINTS, "logits are not finite"),
        (lambda x: linear(x) / 0, POINTS, "logits are not finite"),
        (lambda x: jax.nn.softmax(linear(x)), POINTS, "returns probabilities .* leave out its softmax"),
        (lambda x: linear(x - x.mean(0, keepdims=True)), POINTS, "depend on the other examples .*batch statistics"),
        (lambda x: linear(x) + 0.01 * x.sum(), POINTS, "depend on the other examples"),
        (lambda x: linear(x).at[2:].add(x[0, 1]) if len(x) > 2 else linear(x), POINTS, "depend on the other examples"),
        (linear, POINTS[:1], "1 examples: at least two are needed"),
        (linear, POINTS[:0], "0 examples: at least two are needed"),
    ],
)
def test_an_unsound_classifier_is_refused_with_the_reason(logits_fn, inputs, message):
    with pytest.raises(ValueError, match=message):
        check_classifier(logits_fn, inputs)


def test_a_classifier_is_checked_at_every_example_with_two_compilations():
    shapes = []

    @jax.jit
    def logits_fn(inputs):
        shapes.append(inputs.shape)
        return linear(inputs)

    check_classifier(logits_fn, jnp.tile(POINTS, (33, 1)))
    assert shapes == [(99, 2), (1, 2)]
