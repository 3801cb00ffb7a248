"""The loss that a config names: which terms it has, and the attack inside it."""

from collections.abc import Callable
from functools import partial

from jl1.array_types import (
    AttackFn,
    ChangePenaltyFn,
    ExampleLossFn,
    Inputs,
    Labels,
    LogitsFn,
    PenaltyFn,
    PRNGKey,
    Scalar,
)
from jl1.attacks.ascent import pgd_last_point
from jl1.attacks.divergence import kl_ascent
from jl1.attacks.fgsm import fgsm, fgsm_random_start, predicted_labels
from jl1.change_loss import output_change_loss
from jl1.config import Config
from jl1.gradients import TermsFn
from jl1.losses import (
    LossTerms,
    cross_entropy,
    cross_entropy_off_label,
    defended_loss,
    penalised_loss,
    summed_defended_loss,
)
from jl1.penalties import OUTPUT_CHANGE, make_change_penalty, make_penalty
from jl1.piecewise_linear.chunks import Chunks
from jl1.robust_losses import adversarial_loss, trades_loss


def losses_of(config: Config) -> tuple[ExampleLossFn, ExampleLossFn]:
    """Return the cross-entropy that is trained on, and the one that the attack raises."""
    smooth = {"uniform": cross_entropy, "off_label": cross_entropy_off_label}[config.training.smoothing_form]
    return partial(smooth, smoothing=config.training.smoothing), partial(smooth, smoothing=config.adversarial.smoothing)


def make_terms_fn(config: Config, *, penalised: bool, chunks: Chunks | None = None) -> TermsFn:
    """Choose the terms of the loss, once: without a penalty no Jacobian, with epsilon 0 no attack is compiled.

    `chunks` are those of a penalty that goes through the rows of the Jacobian; None: one row of the whole batch.
    """
    loss_fn, raised_fn = losses_of(config)
    penalty_fn = make_penalty_fn(config, loss_fn, chunks) if penalised else None
    terms = {"penalty_fn": penalty_fn, "loss_fn": loss_fn}

    def on_the_points(
        logits_fn: LogitsFn, inputs: Inputs, *, labels: Labels, lam: Scalar, epsilon: Scalar, key: PRNGKey
    ) -> LossTerms:
        del epsilon  # no attack
        return penalised_loss(logits_fn, inputs, labels=labels, lam=lam, key=key, **terms)

    if config.adversarial.epsilon == 0:
        return on_the_points
    return partial(_coupled_loss(config, penalised), attack_fn=_training_attack(config, raised_fn), **terms)


def _coupled_loss(config: Config, penalised: bool) -> Callable[..., LossTerms]:
    """Choose the loss that an attack goes into."""
    settings = config.adversarial
    if settings.method == "pgd":
        return partial(adversarial_loss, clean_weight=settings.clean_weight)
    if settings.method == "trades":
        return partial(trades_loss, beta=settings.beta)
    coupled = output_change_loss if penalised and config.penalty.name == OUTPUT_CHANGE else defended_loss
    return partial(summed_defended_loss, mean_loss_fn=coupled) if settings.coupling == "sum" else coupled


def make_penalty_fn(
    config: Config, loss_fn: ExampleLossFn, chunks: Chunks | None = None
) -> PenaltyFn | ChangePenaltyFn:
    """Choose the penalty, and how much of it is worked off at a time."""
    outputs, scale = config.penalty.outputs, config.penalty.scale
    if config.penalty.name == OUTPUT_CHANGE:
        return make_change_penalty(outputs=outputs, scale=scale)
    return make_penalty(
        config.penalty.name,
        outputs=outputs,
        scale=scale,
        outputs_per_pass=chunks.outputs if chunks else 1,
        examples_per_pass=chunks.examples if chunks else None,
        num_draws=config.penalty.num_draws,
        loss_fn=loss_fn,
    )


def _training_attack(config: Config, loss_fn: ExampleLossFn) -> AttackFn:
    """Choose the attack inside the loss."""
    attack = _one_step if config.adversarial.method == "twins" else _ascent
    return partial(attack, config.adversarial, loss_fn)


def _one_step(
    settings: Config,
    loss_fn: ExampleLossFn,
    logits_fn: LogitsFn,
    inputs: Inputs,
    *,
    labels: Labels,
    epsilon: Scalar,
    key: PRNGKey,
) -> Inputs:
    """Attack by FGSM."""
    options = {"labels": _attacked_labels(settings, logits_fn, inputs, labels), "epsilon": epsilon, "loss_fn": loss_fn}
    if settings.random_start:
        return fgsm_random_start(logits_fn, inputs, key=key, **options)
    return fgsm(logits_fn, inputs, **options)


def _ascent(
    settings: Config,
    loss_fn: ExampleLossFn,
    logits_fn: LogitsFn,
    inputs: Inputs,
    *,
    labels: Labels,
    epsilon: Scalar,
    key: PRNGKey,
) -> Inputs:
    """Attack by many steps, on the loss or on the divergence."""
    # a given step grows with the radius during the warm-up, or it would be many times the first radii
    step_size = None if settings.step_size is None else settings.step_size / settings.epsilon * epsilon
    options = {"epsilon": epsilon, "key": key, "num_steps": settings.num_steps, "step_size": step_size}
    if settings.method == "trades":
        return kl_ascent(logits_fn, inputs, **options)
    attacked = _attacked_labels(settings, logits_fn, inputs, labels)
    return pgd_last_point(logits_fn, inputs, labels=attacked, loss_fn=loss_fn, **options)


def _attacked_labels(settings: Config, logits_fn: LogitsFn, inputs: Inputs, labels: Labels) -> Labels:
    """Choose the labels whose loss an attack raises."""
    return predicted_labels(logits_fn, inputs) if settings.labels == "predicted" else labels
