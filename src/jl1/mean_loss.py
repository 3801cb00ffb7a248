"""The losses of `losses.py`, by name, jitted and averaged, for a training loop of one's own."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jl1.array_types import ApplyFn, ChangePenaltyFn, ExampleLossFn, Inputs, Labels, Params, PenaltyFn, PRNGKey, Scalar
from jl1.attacks.fgsm import fgsm
from jl1.change_loss import output_change_loss
from jl1.losses import LossTerms, cross_entropy, defended_loss, penalised_loss
from jl1.penalties import OUTPUT_CHANGE, make_change_penalty, make_penalty


def make_loss(
    apply_fn: ApplyFn,
    *,
    penalty: str | PenaltyFn = "jacobian_l1",
    outputs: str = "logits",
    scale: str = "sum",
    num_draws: int = 1,
    attack_fn: Callable[..., Inputs] = fgsm,
    smoothing: float = 0.0,
) -> Callable[..., tuple[Float[Array, ""], LossTerms]]:
    """Make the jitted mean loss of a batch, for a training loop of your own.

    Args:
        apply_fn: Function of params and a batch of inputs to logits, in any framework or none.
        penalty: A name of `penalties.PENALTIES`, of which `none` compiles no Jacobian; or a penalty that is ready,
            from `penalties.make_penalty` with its bounds of memory or of your own, to which `outputs`, `scale` and
            `num_draws` do not matter.
        outputs: What is penalised, a name of `penalties.OUTPUTS`.
        scale: `sum` (Eq. 3) or `mean` over the entries of the Jacobian.
        num_draws: Draws of a penalty that is an estimator.
        attack_fn: Makes the twins, as that of `defended_loss`, such as `fgsm_random_start`.
        smoothing: Label smoothing of the cross-entropy, in [0, 1); the paper has 0.1.

    Returns:
        `loss(params, inputs, labels, *, lam, epsilon=None, key=None)` that returns the mean loss and its mean
        terms; lam and epsilon are traced, so no other value of the same type compiles anew. With epsilon it is
        `defended_loss`, without it `penalised_loss`: no twins, which is the loss at epsilon 0 (in expectation where the
        penalty draws at random) for half of its work. Differentiate it with
        `jax.value_and_grad(loss, has_aux=True)`. A penalty that is an estimator, and an attack that draws, need a new
        key in each step.

    Raises:
        ValueError: An unknown name; from the loss, `output_change` without epsilon.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> loss = make_loss(lambda weights, x: x @ weights)
        >>> params, inputs, labels = jnp.eye(2), jnp.full((4, 2), 0.5), jnp.array([0, 1, 0, 1])
        >>> (value, terms), gradient = jax.value_and_grad(loss, has_aux=True)(
        ...     params, inputs, labels, lam=0.1, epsilon=0.0)
        >>> round(float(value), 4), float(terms.penalty), gradient.shape
        (0.8931, 2.0, (2, 2))
    """
    loss_fn = partial(cross_entropy, smoothing=smoothing)
    is_change = penalty == OUTPUT_CHANGE
    penalty_fn = _find_penalty(penalty, outputs, scale, num_draws, loss_fn)
    with_twins = output_change_loss if is_change else defended_loss

    @jax.jit
    def loss(
        params: Params,
        inputs: Inputs,
        labels: Labels,
        *,
        lam: Scalar,
        epsilon: Scalar | None = None,
        key: PRNGKey | None = None,
    ) -> tuple[Float[Array, ""], LossTerms]:
        logits_fn = partial(apply_fn, params)
        options = {"labels": labels, "lam": lam, "penalty_fn": penalty_fn, "loss_fn": loss_fn}
        if epsilon is not None:
            terms = with_twins(logits_fn, inputs, epsilon=epsilon, attack_fn=attack_fn, key=key, **options)
        elif is_change:
            raise ValueError(f"{OUTPUT_CHANGE} needs the radius of the twins: loss(..., epsilon=...)")
        else:
            terms = penalised_loss(logits_fn, inputs, key=key, **options)
        means = LossTerms(*(jnp.mean(term) for term in terms))
        return means.total, means

    return loss


def _find_penalty(
    penalty: str | PenaltyFn, outputs: str, scale: str, num_draws: int, loss_fn: ExampleLossFn
) -> PenaltyFn | ChangePenaltyFn | None:
    """Make the penalty of a name, or return the one that is ready."""
    if not isinstance(penalty, str):
        return penalty
    if penalty in (OUTPUT_CHANGE, "none"):
        change_penalty = make_change_penalty(outputs=outputs, scale=scale)  # refuses an unknown name for either
        return change_penalty if penalty == OUTPUT_CHANGE else None
    return make_penalty(penalty, outputs=outputs, scale=scale, num_draws=num_draws, loss_fn=loss_fn)
