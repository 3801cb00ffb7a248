"""What a config minimises, in one line."""

from jl1.config import Config
from jl1.penalties import LOSS_GRADIENT_PENALTIES


def describe_loss(config: Config) -> str:
    """Say in one line what is minimised."""
    text = f"loss: cross-entropy, smoothing {config.training.smoothing:g}"
    if config.penalty.name != "none" and config.penalty.lam > 0:
        text += _describe_penalty(config.penalty)
    return text + _describe_attack(config.adversarial)


def _describe_penalty(settings: Config) -> str:
    """Say what is penalised; for a penalty of the loss the config's outputs do not matter."""
    of = "" if settings.name in LOSS_GRADIENT_PENALTIES else f" of the {settings.outputs}"
    return f" + {settings.lam:g} * {settings.name}{of} ({settings.scale})"


def _describe_attack(settings: Config) -> str:
    """Say what is trained on beside the points, or in place of them."""
    if settings.epsilon == 0:
        return ""
    step = settings.step_size
    steps = f" with steps of {step:g} ({step / settings.epsilon:.3g} epsilon)" if step is not None else ""
    warmup = f", reached after {settings.warmup_epochs} epochs" if settings.warmup_epochs else ""
    clean = f", the clean ones with weight {settings.clean_weight:g}" if settings.clean_weight else ""
    where = {
        "twins": "on the points and their FGSM twins",
        "pgd": f"on the points that PGD-{settings.num_steps} finds",
        "trades": f"and {settings.beta:g} times the divergence (TRADES-{settings.num_steps})",
    }[settings.method]
    return f", {where} at {settings.epsilon:g}{steps}{warmup}{clean}"
