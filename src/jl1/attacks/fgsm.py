"""The fast gradient method, one linear step of size epsilon: along the gradient's sign, in L2 along the gradient.

References:
    Goodfellow, Shlens, Szegedy 2015, "Explaining and harnessing adversarial examples",
    arXiv:1412.6572. Random start: Wong, Rice, Kolter 2020, "Fast is better than free",
    arXiv:2001.03994.
"""

import jax
import jax.numpy as jnp
import optax

from jl1.array_types import ExampleLossFn, Inputs, Labels, LogitsFn, NormName, PRNGKey, Scalar
from jl1.attacks.ball import typed_as
from jl1.attacks.norms import LINF, Norm, check_task, random_start
from jl1.evaluated import compose
from jl1.jacobian import input_gradient
from jl1.labels import decisions
from jl1.per_example import is_narrow


def fgsm(
    logits_fn: LogitsFn,
    inputs: Inputs,
    *,
    labels: Labels,
    epsilon: Scalar,
    key: PRNGKey | None = None,
    loss_fn: ExampleLossFn = optax.softmax_cross_entropy_with_integer_labels,
    norm: NormName = "linf",
    lower: float = 0.0,
    upper: float = 1.0,
) -> Inputs:
    """Attack by x' = clip(x + epsilon * sign(grad_x L(f(x), y)), lower, upper) (Sec. 3 and 4.2).

    In L2 the step is epsilon g / ||g||_2 along the gradient g, clipped. A pixel whose gradient is exactly 0 does not
    move (sign(0) = 0). The result is detached: no gradient flows through the attack into the parameters. Not jitted. It
    is a weak attack, whose accuracies are an upper bound that a masked gradient inflates at will: report `pgd` beside
    it.

    Args:
        logits_fn: Network with its parameters bound, a batch to LOGITS (not probabilities: their
            gradients saturate and the attack fails without a sign of it).
        inputs: Batch in [lower, upper].
        labels: Labels whose loss is raised: the true ones, or `predicted_labels` so that no
            information on the true label leaks into the attack.
        epsilon: Radius in the units of the inputs, at least 0; may be traced.
        key: Not used: nothing is drawn. It is there so that this is an attack like others.
        loss_fn: What is raised; cross-entropy without smoothing.
        norm: "linf" or "l2".
        lower: Lowest value an input may have.
        upper: Highest value an input may have.

    Returns:
        Adversarial inputs, within `epsilon` of `inputs` and in [lower, upper].

    Raises:
        ValueError: Inputs that are not floating, labels that are not one integer an example, an unknown norm, or a
            number for epsilon that is negative or (in L-infinity) above upper - lower.

    Example:
        >>> import jax.numpy as jnp
        >>> weights = jnp.array([[1.0, -1.0], [2.0, 0.0]])
        >>> fgsm(lambda x: x @ weights, jnp.full((1, 2), 0.5), labels=jnp.array([0]), epsilon=0.25).tolist()
        [[0.25, 0.25]]
    """
    del key
    geometry = check_task(norm, inputs, labels, epsilon=epsilon, lower=lower, upper=upper)
    gradient = input_gradient(compose(lambda logits: loss_fn(logits, labels), logits_fn), inputs)
    return full_step(inputs, gradient, epsilon=epsilon, norm=geometry, lower=lower, upper=upper)


def full_step(
    inputs: Inputs, gradient: Inputs, *, epsilon: Scalar, norm: Norm = LINF, lower: float = 0.0, upper: float = 1.0
) -> Inputs:
    """Move each input by epsilon to where a function of the given gradient rises most, clip, and detach."""
    epsilon = typed_as(inputs, epsilon)
    moved = inputs + epsilon * norm.ascent(gradient)
    if is_narrow(inputs):
        moved = norm.project(moved, inputs, epsilon=epsilon, lower=lower, upper=upper)
    return jax.lax.stop_gradient(jnp.clip(moved, lower, upper))


def fgsm_random_start(
    logits_fn: LogitsFn,
    inputs: Inputs,
    *,
    labels: Labels,
    epsilon: Scalar,
    key: PRNGKey,
    step_size: Scalar | None = None,
    loss_fn: ExampleLossFn = optax.softmax_cross_entropy_with_integer_labels,
    norm: NormName = "linf",
    lower: float = 0.0,
    upper: float = 1.0,
) -> Inputs:
    """Attack by one step from a uniformly random point of the ball, projected back (Wong 2020).

    Args:
        logits_fn: Network with its parameters bound, a batch to logits.
        inputs: Batch in [lower, upper].
        labels: Labels whose loss is raised.
        epsilon: Radius, at least 0; may be traced.
        key: Fixes the random start.
        step_size: Length of the step; 1.25 epsilon unless given, as in the reference.
        loss_fn: What is raised; cross-entropy without smoothing.
        norm: "linf" or "l2".
        lower: Lowest value an input may have.
        upper: Highest value an input may have.

    Returns:
        Adversarial inputs, within `epsilon` of `inputs` and in [lower, upper], detached.

    Raises:
        ValueError: Inputs that are not floating, labels that are not one integer an example, an unknown norm, or a
            number for epsilon that is negative or (in L-infinity) above upper - lower.
    """
    geometry = check_task(norm, inputs, labels, epsilon=epsilon, lower=lower, upper=upper)
    step_size = typed_as(inputs, 1.25 * epsilon if step_size is None else step_size)
    ball = {"epsilon": typed_as(inputs, epsilon), "lower": lower, "upper": upper}
    start = random_start(key, inputs, norm=geometry, **ball)
    gradient = input_gradient(lambda points: loss_fn(logits_fn(points), labels), start)
    return jax.lax.stop_gradient(geometry.project(start + step_size * geometry.ascent(gradient), inputs, **ball))


def predicted_labels(logits_fn: LogitsFn, inputs: Inputs) -> Labels:
    """Return argmax_i f_i(x), the decision D(x) of Sec. 3.

    An attack on these labels cannot leak the true label into adversarial training (Kurakin et al.
    2017, arXiv:1611.01236); it differs from one on the true labels only where x is misclassified.

    Args:
        logits_fn: Network with its parameters bound, a batch to logits.
        inputs: Batch of examples.

    Returns:
        One class an example; the first of several with the highest logit; -1 where a logit is no number, so that such a
        point counts as misclassified whatever its label.
    """
    return decisions(logits_fn(inputs))
