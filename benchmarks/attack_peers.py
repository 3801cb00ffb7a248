r"""jl1's attacks beside other libraries' on the same weights, points, radius and budgets, each alone and in turn.

    pip install torch torchattacks foolbox adversarial-robustness-toolbox     # beside jl1; never a dependency
    taskset -c 0 python benchmarks/attack_peers.py RUN_FOLDER... [--attacks=fgsm,apgd_ce,ensemble] [--points=1000] \
        [--seeds=1] [--epsilon=0.1] [--norm=l2] > docs/results/attack_peers.json
    python benchmarks/attack_peers.py --table docs/results/attack_peers.json...         # as Markdown

`accuracy` on the first test points is recomputed here, by jl1's network, from the points that each side returned; a
point outside the ball or the range would stop the script. Seconds are process CPU seconds of one run, without jl1's
compilation. torchattacks' own AutoAttack has 10 steps where the paper has 100, so its attacks are put together here,
with the published budgets. foolbox and ART have FGSM and PGD of the same budget; torchattacks has no FGSM in L2.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import foolbox  # pyright: ignore[reportMissingImports]
import jax
import numpy as np
import torch  # pyright: ignore[reportMissingImports]
import torchattacks  # pyright: ignore[reportMissingImports]
from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescent  # pyright: ignore[reportMissingImports]
from art.estimators.classification import PyTorchClassifier  # pyright: ignore[reportMissingImports]

from jl1.array_types import NormName
from jl1.attacks.apgd import apgd
from jl1.attacks.budgets import BUDGETS, Stage
from jl1.attacks.ensemble import standard_attack
from jl1.attacks.fgsm import fgsm
from jl1.attacks.norms import NORMS
from jl1.attacks.objectives import dlr
from jl1.attacks.pgd import pgd
from jl1.models import MODELS, Conv
from jl1.runs.trained import load_trained

_STEPS, _QUERIES, _PGD_STEPS = 100, 5000, 40
_TOLERANCE = 1e-6  # for rounding, of a radius up to 1; of larger ones so many times as much

STAGES = {
    "fgsm": Stage(fgsm),
    "pgd": Stage(partial(pgd, num_steps=_PGD_STEPS, num_restarts=1)),
    "apgd_dlr": Stage(partial(apgd, loss_fn=dlr)),
    **BUDGETS["full"],
}
ATTACKS = {**{name: (name,) for name in STAGES}, "ensemble": tuple(BUDGETS["full"])}


class _Images(torch.nn.Module):
    """Change images to NCHW on entry, and back before the first dense layer."""

    def __init__(self, *axes: int) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values.permute(self.axes).flatten(1)


def to_torch(model: str, params: Any, side: int) -> torch.nn.Module:
    """Rebuild a model of Table 1 for images of `side` by `side` pixels in PyTorch, NCHW, with the same weights."""
    layers: list[torch.nn.Module] = []
    flat = False
    for index, layer in enumerate((*MODELS[model], None)):
        name = f"layer_{index}" if layer is not None else "output"
        kernel, bias = (torch.from_numpy(np.array(params[name][part])) for part in ("kernel", "bias"))
        if isinstance(layer, Conv):
            size, stride = layer.kernel_size, layer.stride
            total = max((-(-side // stride) - 1) * stride + size - side, 0) if layer.padding == "SAME" else 0
            layers.append(torch.nn.ZeroPad2d((total // 2, total - total // 2) * 2))
            affine: Any = torch.nn.Conv2d(kernel.shape[2], kernel.shape[3], size, stride)
            weight, side = kernel.permute(3, 2, 0, 1), (side + total - size) // stride + 1
        else:
            if not flat:
                layers.append(_Images(0, 2, 3, 1))
                flat = True
            affine, weight = torch.nn.Linear(*kernel.shape), kernel.T
        with torch.no_grad():
            affine.weight.copy_(weight)
            affine.bias.copy_(bias)
        layers += [affine, torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1]).eval()


def torch_attacks(network: torch.nn.Module, norm: NormName, epsilon: float, seed: int) -> dict[str, Any]:
    """Return torchattacks' attacks with the budgets of `STAGES`."""
    options = {"norm": {"linf": "Linf", "l2": "L2"}[norm], "eps": epsilon, "seed": seed}
    pgd_type = {"linf": torchattacks.PGD, "l2": torchattacks.PGDL2}[norm]
    step_size = 2.5 * epsilon / _PGD_STEPS
    return {
        **({"fgsm": torchattacks.FGSM(network, eps=epsilon)} if norm == "linf" else {}),
        "pgd": pgd_type(network, eps=epsilon, alpha=step_size, steps=_PGD_STEPS, random_start=True),
        "apgd_dlr": torchattacks.APGD(network, steps=_STEPS, loss="dlr", **options),
        "apgd_ce": torchattacks.APGD(network, steps=_STEPS, loss="ce", **options),
        "apgd_t": torchattacks.APGDT(network, steps=_STEPS, n_classes=10, **options),
        "fab_t": torchattacks.FAB(network, steps=_STEPS, multi_targeted=True, n_classes=10, **options),
        "square": torchattacks.Square(network, n_queries=_QUERIES, resc_schedule=False, **options),
    }


def foolbox_attacks(network: torch.nn.Module, norm: NormName, epsilon: float) -> dict[str, Any]:
    """Return foolbox's attacks with the budgets of `STAGES`."""
    model = foolbox.PyTorchModel(network, bounds=(0, 1))
    fgsm_type, pgd_type = {
        "linf": (foolbox.attacks.LinfFastGradientAttack, foolbox.attacks.LinfPGD),
        "l2": (foolbox.attacks.L2FastGradientAttack, foolbox.attacks.L2PGD),
    }[norm]
    attacks = {
        "fgsm": fgsm_type(random_start=False),
        "pgd": pgd_type(rel_stepsize=2.5 / _PGD_STEPS, steps=_PGD_STEPS, random_start=True),
    }
    return {
        name: lambda points, labels, attack=attack: attack(model, points, labels, epsilons=epsilon)[1]
        for name, attack in attacks.items()
    }


def art_attacks(network: torch.nn.Module, norm: NormName, epsilon: float, shape: tuple[int, ...]) -> dict[str, Any]:
    """Return the attacks of the adversarial robustness toolbox with the budgets of `STAGES`."""
    model = PyTorchClassifier(
        network, loss=torch.nn.CrossEntropyLoss(), input_shape=shape, nb_classes=10, clip_values=(0, 1)
    )
    options = {"eps": epsilon, "norm": {"linf": np.inf, "l2": 2}[norm], "batch_size": 500}
    steps = {"max_iter": _PGD_STEPS, "eps_step": 2.5 * epsilon / _PGD_STEPS, "num_random_init": 1}
    attacks = {
        "fgsm": FastGradientMethod(model, **options),
        "pgd": ProjectedGradientDescent(model, verbose=False, **options, **steps),
    }
    return {
        name: lambda points, labels, attack=attack: torch.from_numpy(attack.generate(points.numpy(), labels.numpy()))
        for name, attack in attacks.items()
    }


def run_torch(attacks: Sequence[Any], network: torch.nn.Module, inputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Attack by each in turn the points still standing and return all points, NHWC."""
    points, targets = torch.from_numpy(inputs.transpose(0, 3, 1, 2).copy()), torch.from_numpy(labels.astype(np.int64))
    for attack in attacks:
        with torch.no_grad():
            standing = torch.nonzero(network(points).argmax(1) == targets).flatten()
        if len(standing):
            points[standing] = attack(points[standing].clone(), targets[standing]).detach()
    return points.numpy().transpose(0, 2, 3, 1)


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    """Return what a function returns and the CPU seconds it took."""
    start = time.process_time()
    result = function()
    return result, round(time.process_time() - start, 1)


class Comparison:
    """One finished run's network in jl1 and in PyTorch, and the points that both attack."""

    def __init__(self, workdir: Path, num_points: int, norm: NormName, epsilon: float) -> None:
        self.name, self._epsilon = workdir.name, epsilon
        self._norm: NormName = norm
        self._trained = load_trained(workdir)
        self._apply_fn = jax.jit(self._trained.apply_fn)
        self._inputs, self._labels = (np.asarray(part[:num_points]) for part in self._trained.data.test)
        self._network = to_torch(self._trained.config.model.name, self._trained.params, self._inputs.shape[1])
        with torch.no_grad():
            theirs = self._network(torch.from_numpy(self._inputs.transpose(0, 3, 1, 2).copy())).numpy()
        np.testing.assert_allclose(theirs, np.asarray(self._apply_fn(self._trained.params, self._inputs)), atol=1e-3)

    def sides(self, name: str, seed: int) -> Iterator[tuple[str, Callable[[], np.ndarray]]]:
        """Yield every library that has the attack, and what returns its points."""
        stages = {each: STAGES[each] for each in ATTACKS[name]}
        yield "jl1", partial(self._ours, stages, seed)
        libraries = {
            "torchattacks": torch_attacks(self._network, self._norm, self._epsilon, seed),
            "foolbox": foolbox_attacks(self._network, self._norm, self._epsilon),
            "art": art_attacks(self._network, self._norm, self._epsilon, self._inputs.transpose(0, 3, 1, 2).shape[1:]),
        }
        for library, attacks in libraries.items():
            if set(stages) <= set(attacks):
                chosen = [attacks[each] for each in stages]
                yield library, partial(run_torch, chosen, self._network, self._inputs, self._labels)

    def accuracy(self, points: np.ndarray) -> float:
        """Check the points, and measure what they leave."""
        moves = (points - self._inputs).reshape(len(points), -1)
        order = {"linf": np.inf, "l2": 2}[self._norm]
        assert np.linalg.norm(moves, order, axis=1).max() <= self._epsilon + _TOLERANCE * max(self._epsilon, 1)
        assert points.min() >= 0
        assert points.max() <= 1
        logits = np.asarray(self._apply_fn(self._trained.params, points))
        return float((logits.argmax(axis=1) == self._labels).mean())

    def _ours(self, stages: dict[str, Stage], seed: int) -> np.ndarray:
        attacked = standard_attack(
            self._trained.apply_fn,
            self._trained.params,
            inputs=self._inputs,
            labels=self._labels,
            epsilon=self._epsilon,
            key=jax.random.key(seed),
            budget=stages,
            norm=self._norm,
        )
        return attacked.inputs


def compare(comparison: Comparison, names: Sequence[str], num_seeds: int) -> Iterator[dict[str, Any]]:
    """Yield one row an attack, seed and side."""
    for name in names:
        dict(comparison.sides(name, 0))["jl1"]()  # compiles
        for seed in range(num_seeds):
            torch.manual_seed(seed)
            np.random.seed(seed)  # noqa: NPY002 (ART draws from it)
            for side, run in comparison.sides(name, seed):
                points, seconds = timed(run)
                row = {"run": comparison.name, "attack": name, "by": side, "seed": seed}
                yield row | {"accuracy": comparison.accuracy(points), "seconds": seconds}


def table_of(files: Sequence[Path]) -> str:
    """Write a line a run, attack, ball and number of points: accuracy in percent and CPU seconds, means over seeds."""
    found: dict[tuple[str, str, str, int], dict[str, list[tuple[float, float]]]] = {}
    for content in (json.loads(file.read_text()) for file in files):
        ball = f"{content.get('norm', 'linf')} {content.get('epsilon', 0.1):g}"
        for row in content["rows"]:
            key = (row["run"], row["attack"], ball, row.get("points", content["points"]))
            cells = found.setdefault(key, {})
            cells.setdefault(row["by"], []).append((row["accuracy"], row["seconds"]))
    libraries = list(dict.fromkeys(library for cells in found.values() for library in cells))
    lines = [["run", "attack", "ball", "points", "seeds", *libraries], ["---"] * (5 + len(libraries))]
    for (run, attack, ball, points), cells in found.items():
        means = [_mean(cells[library]) if library in cells else "" for library in libraries]
        lines.append([run, attack, ball, f"{points}", f"{len(cells['jl1'])}", *means])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _mean(values: Sequence[tuple[float, float]]) -> str:
    """Write the mean accuracy and the mean seconds."""
    accuracy, seconds = np.mean(values, axis=0)
    return f"{100 * accuracy:.1f} ({seconds:.1f} s)"


def main() -> None:
    """Print all rows, and what they were made with, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--attacks", type=lambda text: text.split(","), default=list(ATTACKS))
    parser.add_argument("--points", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epsilon", type=float, default=0.1)
    parser.add_argument("--norm", choices=NORMS, default="linf")
    parser.add_argument("--table", action="store_true", help="the folders are files that were printed before")
    chosen = parser.parse_args()
    if chosen.table:
        print(table_of(chosen.folders))
        return
    torch.set_num_threads(1)
    rows = []
    for folder in chosen.folders:
        comparison = Comparison(folder, chosen.points, chosen.norm, chosen.epsilon)
        for row in compare(comparison, chosen.attacks, chosen.seeds):
            print(json.dumps(row), file=sys.stderr, flush=True)
            rows.append(row)
    packages = ("jax", "torch", "torchattacks", "foolbox", "adversarial-robustness-toolbox")
    versions = {name: metadata.version(name) for name in packages}
    made = {"norm": chosen.norm, "epsilon": chosen.epsilon, "points": chosen.points, "versions": versions}
    json.dump({**made, "rows": rows}, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
