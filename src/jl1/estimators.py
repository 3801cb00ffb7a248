"""Estimates of the penalties by fewer passes than the exact ones need.

Those that draw at random take a key and return one unscaled estimate an example, of its own draws; all but the finite
difference are unbiased. The cosine is that of one draw's gradient to the exact one of Eq. 3: docs/estimators.md.

| name | estimates | a draw costs | cosine, C / A |
|---|---|---|---|
| `jacobian_l1_sampled_classes` | sum_ij abs(J_ij), Eq. 3 | one reverse pass, differentiated again | 0.94 / 0.99 |
| `jacobian_l1_finite_difference` | Eq. 3, biased by its step | one reverse and one forward pass | 0.34 / 0.36 |
| `jacobian_l1_random_sign` | between sum_j norm_2(J_:j) / sqrt 2 and sum_j norm_2(J_:j) | as the first | 0.91 / 0.98 |
| `jacobian_l21_projected` | sum_j norm_2(J_:j) | as the first | 0.90 / 0.98 |
| `jacobian_frobenius_projected` | sum_ij J_ij^2 | as the first | 0.90 / 0.97 |
| `output_change` | a lower bound of a supremum of Eq. 3's norm | nothing, beside adversarial training | |
"""

import math

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from jl1.array_types import BatchedFn, Inputs, Outputs, PerExample, PRNGKey, Scalar
from jl1.draws import draw_classes, draw_vectors, mean_over_draws
from jl1.evaluated import value_and_pullback
from jl1.jacobian import entrywise_l1, squared_l2


def jacobian_l1_sampled_classes(
    batched_fn: BatchedFn, inputs: Inputs, *, key: PRNGKey, num_draws: int = 1
) -> PerExample:
    """Estimate ||J||_{1,1} (Eq. 3) by c/k sum_i ||grad f_i(x)||_1 over k of the c outputs.

    Unbiased at every example, value and gradient. The k outputs of an example are drawn without replacement and
    spread evenly over the batch, in which every output is drawn equally often, up to one. The relative variance of
    one example's estimate is at most c/k - 1, and 0 with k = c. The cost grows with c only in the last layer: with
    one draw the step takes about twice a plain one.

    Args:
        batched_fn: Batch of inputs to a batch of output vectors; examples must not interact.
        inputs: Batch of examples.
        key: Fixes which outputs are drawn.
        num_draws: The k above: reverse passes, 1 to c.

    Returns:
        One estimate an example.

    Raises:
        ValueError: `num_draws` below 1 or above the number of outputs.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> weights = jnp.array([[1.0, -2.0], [3.0, 0.5]])  # rows of norm 3 and 3.5: one each for two examples
        >>> inputs, key = jnp.zeros((2, 2)), jax.random.key(0)
        >>> sorted(jacobian_l1_sampled_classes(lambda x: x @ weights.T, inputs, key=key).tolist())
        [6.0, 7.0]
    """
    outputs, pullback = value_and_pullback(batched_fn, inputs)
    classes = draw_classes(key, outputs, num_draws=num_draws)
    row_norms = mean_over_draws(lambda drawn: entrywise_l1(pullback(_one_hot(drawn, outputs))[0]), classes)
    return outputs.shape[1] * row_norms


def jacobian_l1_finite_difference(
    batched_fn: BatchedFn, inputs: Inputs, *, key: PRNGKey, num_draws: int = 1, step_size: float = 1e-2
) -> PerExample:
    """Estimate ||J||_{1,1} (Eq. 3) by c/k sum_i (f_i(x + h s_i) - f_i(x))/h, s_i = sign(grad f_i(x)), over k outputs.

    The outputs are drawn as in `jacobian_l1_sampled_classes`, and the signs are constants: no derivative is
    differentiated again. Equal to it as long as a piecewise-linear network crosses no kink on the way from x to
    x + h s_i, otherwise biased by O(h), which more draws do not lessen. Both points are differentiated with respect to
    the parameters: it is not cheaper. x + h s_i may leave the range of the inputs by h.

    FOR SMOOTH NETWORKS: with ReLU the value is close and the gradient is not. A unit that switches on the way
    adds a term of order 1/h to it, so that a smaller h makes it worse until not one unit of the batch switches, which
    in float32 is below rounding. Cosine to the exact gradient, all classes, initial model C: 0.09 at h = 1e-4, 0.20 at
    1e-3, 0.33 at 1e-2, 0.39 at 1e-1; with softplus 1.0000 for all up to 1e-2, then 0.998.

    Args:
        batched_fn: Batch of inputs to a batch of output vectors; examples must not interact.
        inputs: Batch of examples.
        key: Fixes which outputs are drawn.
        num_draws: The k above, 1 to c.
        step_size: The h above, in the units of the inputs, above 0.

    Returns:
        One estimate an example.

    Raises:
        ValueError: `num_draws` below 1 or above the number of outputs, or a `step_size` that is not above 0 and finite.

    References:
        Finlay, Oberman 2019, "Scaleable input gradient regularization for adversarial robustness", arXiv:1905.11468.
    """
    if not 0 < step_size < math.inf:
        raise ValueError(f"step_size={step_size}: must be above 0 and finite")
    outputs, pullback = value_and_pullback(batched_fn, inputs)

    def one_draw(drawn: Int[Array, " batch"]) -> PerExample:
        chosen = _one_hot(drawn, outputs)
        signs = jax.lax.stop_gradient(jnp.sign(pullback(chosen)[0]))
        return jnp.sum(chosen * (batched_fn(inputs + step_size * signs) - outputs), axis=1) / step_size

    return outputs.shape[1] * mean_over_draws(one_draw, draw_classes(key, outputs, num_draws=num_draws))


def jacobian_l1_random_sign(batched_fn: BatchedFn, inputs: Inputs, *, key: PRNGKey, num_draws: int = 1) -> PerExample:
    """Estimate sum_j E|s . J_:j| by 1/n sum_k ||s_k^T J||_1 with random signs s_k.

    ANOTHER NORM than Eq. 3's: by Khintchine's inequality it lies between 1/sqrt(2) and 1 times the (2,1) norm
    sum_j ||J_:j||_2, which lies between ||J||_{1,1} / sqrt(c) and ||J||_{1,1}. Unbiased for that norm; the relative
    variance of one draw is at most 1 and falls as 1/num_draws.

    Args:
        batched_fn: Batch of inputs to a batch of output vectors; examples must not interact.
        inputs: Batch of examples.
        key: Fixes the signs.
        num_draws: Reverse passes, at least 1.

    Returns:
        One estimate an example.

    Raises:
        ValueError: `num_draws` below 1.

    References:
        Szarek 1976, "On the best constants in the Khinchin inequality", Studia Mathematica 58.
    """
    outputs, pullback = value_and_pullback(batched_fn, inputs)
    signs = draw_vectors(jax.random.rademacher, key, num_draws, outputs)
    return mean_over_draws(lambda sign: entrywise_l1(pullback(sign)[0]), signs)


def jacobian_l21_projected(batched_fn: BatchedFn, inputs: Inputs, *, key: PRNGKey, num_draws: int = 1) -> PerExample:
    """Estimate the (2,1) norm sum_j ||J_:j||_2 by sqrt(pi/2)/n sum_k ||v_k^T J||_1 with normal v_k.

    Unbiased, since E|v . J_:j| = sqrt(2/pi) ||J_:j||_2. ANOTHER NORM than Eq. 3's: between ||J||_{1,1} / sqrt(c) and
    ||J||_{1,1}. The relative variance of one draw is at most pi/2 - 1 and falls as 1/num_draws.

    Args:
        batched_fn: Batch of inputs to a batch of output vectors; examples must not interact.
        inputs: Batch of examples.
        key: Fixes the projections.
        num_draws: Reverse passes, at least 1.

    Returns:
        One estimate an example.

    Raises:
        ValueError: `num_draws` below 1.
    """
    outputs, pullback = value_and_pullback(batched_fn, inputs)
    normal = draw_vectors(jax.random.normal, key, num_draws, outputs)
    return math.sqrt(math.pi / 2) * mean_over_draws(lambda vector: entrywise_l1(pullback(vector)[0]), normal)


def jacobian_frobenius_projected(
    batched_fn: BatchedFn, inputs: Inputs, *, key: PRNGKey, num_draws: int = 1
) -> PerExample:
    """Estimate the SQUARED Frobenius norm by c/n sum_k ||v_k^T J||_2^2 with random unit vectors v_k.

    Unbiased, since E[v v^T] = I/c for v uniform on the sphere of c dimensions. The relative variance of one draw is
    at most 2 and falls as 1/num_draws.

    Args:
        batched_fn: Batch of inputs to a batch of output vectors; examples must not interact.
        inputs: Batch of examples.
        key: Fixes the projections.
        num_draws: Reverse passes, at least 1.

    Returns:
        One estimate an example.

    Raises:
        ValueError: `num_draws` below 1.

    References:
        Hoffman, Roberts, Yaida 2019, "Robust learning with Jacobian regularization", arXiv:1908.02729.
    """
    outputs, pullback = value_and_pullback(batched_fn, inputs)
    normal = draw_vectors(jax.random.normal, key, num_draws, outputs)
    unit = normal / jnp.linalg.norm(normal, axis=-1, keepdims=True)
    return outputs.shape[1] * mean_over_draws(lambda vector: squared_l2(pullback(vector)[0]), unit)


def output_change(outputs: Outputs, twin_outputs: Outputs, *, epsilon: Scalar) -> PerExample:
    """Compute sum_i |f_i(x') - f_i(x)| / epsilon, the left side of Eq. 2 summed over the outputs.

    For x' within epsilon of x it is at most the supremum of ||J||_{1,1} over the segment between them. Biased, and by
    how much depends on x': it sees one direction, the attack's. It costs nothing where both outputs are there anyway,
    as in adversarial training (`change_loss.output_change_loss`); no derivative is differentiated again.

    Args:
        outputs: f(x).
        twin_outputs: f(x').
        epsilon: Radius of the ball around x that x' lies in, at least 0; may be traced. At 0 the result is 0.

    Returns:
        One value an example, in units of output per unit of input.

    Example:
        >>> import jax.numpy as jnp
        >>> output_change(jnp.array([[1.0, 0.0]]), jnp.array([[0.5, 1.0]]), epsilon=0.5).tolist()
        [3.0]

    References:
        Seck, Loosli, Canu 2019, arXiv:1903.01715, Eq. 2.
    """
    chex.assert_equal_shape([outputs, twin_outputs])
    change = entrywise_l1(twin_outputs - outputs) / jnp.where(epsilon > 0, epsilon, 1.0)
    return jnp.where(epsilon > 0, change, 0.0)


def _one_hot(classes: Int[Array, " batch"], outputs: Outputs) -> Outputs:
    """Return one unit vector an example."""
    return jax.nn.one_hot(classes, outputs.shape[1], dtype=outputs.dtype)
