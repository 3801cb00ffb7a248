"""The checks that refuse a bad setting before anything starts."""

from collections.abc import Iterator

from jl1.attacks.budgets import BUDGETS
from jl1.attacks.suite import ATTACKS
from jl1.config import Config, default_config
from jl1.configuration.fields import field_names, read_field
from jl1.data import DATASETS, POINTS
from jl1.datasets.sources import EMBEDDED
from jl1.datasets.tiles import MOST_TILES, num_classes_of
from jl1.errors import UserError, did_you_mean
from jl1.models import ACTIVATIONS, CONVOLUTIONS, INITIALISERS, MODELS
from jl1.penalties import CONSTANT_SUM, DRAW_CLASSES, ESTIMATORS, OUTPUT_CHANGE, OUTPUTS, PENALTIES, SCALES
from jl1.precision import PRECISIONS
from jl1.stopping import STOPPING


def validate_config(config: Config) -> None:
    """Refuse settings that no run can have.

    Raises:
        UserError: All that is wrong, one line each: the field, its value, what is allowed.
    """
    if problems := list(_type_problems(config)) or list(_problems(config)):
        raise UserError("the config cannot be run:\n" + "\n".join(f"  {problem}" for problem in problems))


def _type_problems(config: Config) -> Iterator[str]:
    """Yield one line for every field of another type than its default, such as None where a number must be."""
    defaults = default_config()
    for field in field_names(defaults):
        value, default = read_field(config, field), read_field(defaults, field)
        wanted = (int, float) if isinstance(default, float) else (type(default),)
        fits = isinstance(value, wanted) and isinstance(value, bool) == isinstance(default, bool)
        if default is not None and not fits:
            yield f"config.{field}={value!r}: must be of type {wanted[-1].__name__}, like the default {default!r}"


def _problems(config: Config) -> Iterator[str]:
    """Yield one line for every field that is out of its range."""
    for field, allowed in _CHOICES.items():
        value = read_field(config, field)
        if value not in allowed:
            yield f"config.{field}={value!r}: must be one of {', '.join(allowed)}{did_you_mean(str(value), allowed)}"
    for field, (low, high, allowed) in _RANGES.items():
        value = read_field(config, field)
        if value is not None and not low <= value <= high:
            yield f"config.{field}={value!r}: must be {allowed}"
    yield from _unused_problems(config)
    yield from _evaluation_problems(config.evaluation)
    yield from _penalty_problems(config)
    yield from _attack_problems(config.adversarial)


def _unused_problems(config: Config) -> Iterator[str]:
    """Yield a line for every setting of the split and of the stopping rule that would have no effect."""
    unused: dict[str, str] = {}
    if config.training.stopping == "fixed":
        rule = ("training.stopping_tolerance", "training.stopping_epochs")
        unused |= dict.fromkeys(rule, "has no effect with config.training.stopping=fixed")
    if config.data.name == EMBEDDED:
        split = ("data.validation_size", "data.split", "data.split_seed")
        unused |= dict.fromkeys(split, f"{EMBEDDED} has a split of its own")
    elif config.data.split != "random":
        unused["data.split_seed"] = "needs config.data.split=random"
    for field, why in unused.items():
        if read_field(config, field) != read_field(default_config(), field):
            yield f"config.{field}={read_field(config, field)!r}: {why}"


def _penalty_problems(config: Config) -> Iterator[str]:
    """Yield a line for every setting without which, or with which, a penalty of this name cannot be."""
    name, num_draws, num_classes = config.penalty.name, config.penalty.num_draws, num_classes_of(config.data.tiles)
    if num_draws > 1 and name not in ESTIMATORS:
        yield f"config.penalty.num_draws={num_draws}: {name} draws nothing; estimators are {', '.join(ESTIMATORS)}"
    if num_draws > num_classes and name in DRAW_CLASSES:
        yield f"config.penalty.num_draws={num_draws}: {name} draws different classes, and there are {num_classes:,}"
    if name == "class_sum_l1" and config.penalty.outputs in CONSTANT_SUM and config.penalty.lam > 0:
        yield (
            f"config.penalty.outputs={config.penalty.outputs!r}: their sum over the classes is constant, so {name} is "
            "0 on any network; take logits or log_probs"
        )
    if name == OUTPUT_CHANGE and (config.adversarial.epsilon == 0 or config.adversarial.method != "twins"):
        yield (
            f"config.penalty.name={name!r}: compares points and twins, needs config.adversarial.epsilon above 0 and "
            "config.adversarial.method=twins"
        )


def _attack_problems(settings: Config) -> Iterator[str]:
    """Yield a line for every setting of the attack in training that would have no effect."""
    defaults, method = default_config().adversarial, settings.method
    for name in [name for name in settings if settings[name] != defaults[name]]:
        if settings.epsilon == 0:
            yield f"config.adversarial.{name}={settings[name]!r}: needs config.adversarial.epsilon above 0"
        users = [user for user, fields in _METHODS.items() if name in fields]
        if users and method in _METHODS and method not in users:
            yield f"config.adversarial.{name}={settings[name]!r}: is for method {' or '.join(users)}, not {method}"


def _evaluation_problems(settings: Config) -> Iterator[str]:
    """Yield a line for every list of the evaluation with something in it that cannot be."""
    epsilons, attacks = settings.epsilons, settings.attacks
    for unknown in sorted({*map(str, attacks)} - {*ATTACKS})[:1]:
        hint = did_you_mean(unknown, ATTACKS)
        yield f"config.evaluation.attacks={attacks!r}: must be some of {', '.join(ATTACKS)}{hint}"
    if not all(isinstance(epoch, int) and epoch >= 1 for epoch in settings.epochs):
        yield f"config.evaluation.epochs={settings.epochs!r}: must be whole numbers, at least 1"
    if not epsilons or not all(isinstance(epsilon, int | float) and 0 <= epsilon <= 1 for epsilon in epsilons):
        yield f"config.evaluation.epsilons={epsilons!r}: must be numbers in [0, 1], the range of the inputs"


_METHODS = {
    "twins": ("labels", "smoothing", "random_start", "coupling"),
    "pgd": ("labels", "smoothing", "num_steps", "step_size", "clean_weight"),
    "trades": ("num_steps", "step_size", "beta"),
}
"""The ways of robust training, and the settings that belong to each."""


_CHOICES = {
    "data.name": DATASETS,
    "data.split": ("official", "random"),
    "model.name": tuple(MODELS),
    "model.activation": tuple(ACTIVATIONS),
    "model.init": tuple(INITIALISERS),
    "model.convolution": ("auto", *CONVOLUTIONS),
    "penalty.name": PENALTIES,
    "penalty.outputs": tuple(OUTPUTS),
    "penalty.scale": SCALES,
    "penalty.gradient": ("auto", "closed_form", "automatic"),
    "adversarial.method": tuple(_METHODS),
    "adversarial.labels": ("true", "predicted"),
    "adversarial.coupling": ("mean", "sum"),
    "evaluation.points": POINTS,
    "evaluation.budget": tuple(BUDGETS),
    "training.precision": tuple(PRECISIONS),
    "training.smoothing_form": ("uniform", "off_label"),
    "training.stopping": tuple(STOPPING),
    "training.weights": ("last", "best"),
}
_COUNTS = (
    *("data.validation_size", "penalty.memory_mb", "penalty.outputs_per_pass", "penalty.num_draws"),
    *("training.num_epochs", "training.batch_size", "training.stopping_epochs"),
    *("evaluation.pgd_steps", "evaluation.pgd_restarts", "evaluation.batch_size", "evaluation.max_points"),
)
_SEEDS = ("seed", "seeds.init", "seeds.order", "seeds.attack", "data.split_seed")
_BELOW_ONE = ("adversarial.smoothing", "training.smoothing", "optimizer.b1", "optimizer.b2")
_RANGES = {
    **dict.fromkeys(_SEEDS, (0, 2**32 - 1, "in [0, 2**32)")),
    **dict.fromkeys(_COUNTS, (1, float("inf"), "at least 1")),
    "data.tiles": (1, MOST_TILES, f"1 to {MOST_TILES} images side by side"),
    "penalty.lam": (0, 1e30, "a number in [0, 1e30] (a negative lambda would reward large derivatives)"),
    **dict.fromkeys(("penalty.every", "adversarial.num_steps"), (1, 2**31 - 1, "at least 1, and below 2**31")),
    "adversarial.epsilon": (0, 1, "in [0, 1], the range of the inputs (8 grey levels are 8/255)"),
    "adversarial.warmup_epochs": (0, 10_000, "in [0, 10,000]"),  # its steps are counted in 32 bits
    "adversarial.step_size": (1e-9, 1, "above 0 and at most 1, the range of the inputs"),
    **dict.fromkeys(("adversarial.beta", "optimizer.learning_rate"), (0, 1e30, "a number in [0, 1e30]")),
    "adversarial.clean_weight": (0, 1, "in [0, 1]"),
    "optimizer.eps": (1e-30, 1, "above 0 and at most 1: Adam divides by it where gradients are 0"),
    **dict.fromkeys(_BELOW_ONE, (0, 1 - 1e-9, "in [0, 1)")),
    "training.stopping_tolerance": (0, 1, "in [0, 1], a fraction"),
    "log.traced_points": (0, 100, "in [0, 100], a few hundred numbers an epoch each"),
}
