r"""jl1's attacks beside torchattacks' on the same weights, points, radius and budgets, each alone and in turn.

    pip install torch torchattacks     # beside jl1; never a dependency
    taskset -c 0 python benchmarks/attack_peers.py RUN_FOLDER... [--attacks=apgd_ce,ensemble] [--points=1000] \
        [--seeds=1] > docs/results/attack_peers.json

The first test points at L-infinity 0.1. `accuracy` is recomputed here, by jl1's network, from the points that
each side returned; a point outside the ball or the range would stop the script. Seconds are process CPU seconds of one
run, without jl1's compilation. torchattacks' own AutoAttack has 10 steps where the paper has 100, so its
attacks are put together here, with the published budgets.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch  # pyright: ignore[reportMissingImports]
import torchattacks  # pyright: ignore[reportMissingImports]

from jl1.attacks.apgd import apgd
from jl1.attacks.ensemble import BUDGETS, Stage, standard_attack
from jl1.attacks.objectives import dlr
from jl1.checkpoints import Checkpoints
from jl1.config_files import config_from_dict
from jl1.models import MODELS, Conv
from jl1.problems import create_problem, load_data
from jl1.records import read_config
from jl1.trainer import snapshot_template

_EPSILON, _STEPS, _QUERIES = 0.1, 100, 5000

STAGES = {"apgd_dlr": Stage(partial(apgd, loss_fn=dlr)), **BUDGETS["full"]}
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


def torch_attacks(network: torch.nn.Module, seed: int) -> dict[str, Any]:
    """Return torchattacks' attacks with the budgets of `STAGES`."""
    options = {"norm": "Linf", "eps": _EPSILON, "seed": seed}
    return {
        "apgd_dlr": torchattacks.APGD(network, steps=_STEPS, loss="dlr", **options),
        "apgd_ce": torchattacks.APGD(network, steps=_STEPS, loss="ce", **options),
        "apgd_t": torchattacks.APGDT(network, steps=_STEPS, n_classes=10, **options),
        "fab_t": torchattacks.FAB(network, steps=_STEPS, multi_targeted=True, n_classes=10, **options),
        "square": torchattacks.Square(network, n_queries=_QUERIES, **options),
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


def compare(workdir: Path, names: Sequence[str], *, num_points: int, num_seeds: int) -> list[dict[str, Any]]:
    """Return one row an attack and side for one finished run."""
    config = config_from_dict(read_config(workdir))
    data = load_data(config)
    problem = create_problem(config, data)
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        restored = checkpoints.restore(snapshot_template(config, problem.state), print)
    assert restored is not None, f"{workdir} has no checkpoint"
    params = restored.snapshot.state.params
    inputs, labels = np.asarray(data.test.inputs[:num_points]), np.asarray(data.test.labels[:num_points])
    network = to_torch(config.model.name, params, inputs.shape[1])
    apply_fn = jax.jit(problem.apply_fn)
    logits = np.asarray(apply_fn(params, inputs))
    with torch.no_grad():
        theirs = network(torch.from_numpy(inputs.transpose(0, 3, 1, 2).copy())).numpy()
    np.testing.assert_allclose(theirs, logits, atol=1e-3)
    rows = []
    for name in names:
        stages = {each: STAGES[each] for each in ATTACKS[name]}
        run = partial(
            standard_attack, problem.apply_fn, params, inputs=inputs, labels=labels, epsilon=_EPSILON, budget=stages
        )
        run(key=jax.random.key(0))  # compiles
        for seed in range(num_seeds):
            ours, seconds = timed(partial(run, key=jax.random.key(seed)))
            attacks = torch_attacks(network, seed)
            theirs, their_seconds = timed(
                partial(run_torch, [attacks[each] for each in stages], network, inputs, labels)
            )
            for points, side, spent in ((ours.inputs, "jl1", seconds), (theirs, "torchattacks", their_seconds)):
                assert np.abs(points - inputs).max() <= _EPSILON + 1e-6
                assert points.min() >= 0
                assert points.max() <= 1
                accuracy = float((np.asarray(apply_fn(params, points)).argmax(axis=1) == labels).mean())
                rows.append(
                    {
                        "run": workdir.name,
                        "attack": name,
                        "by": side,
                        "seed": seed,
                        "accuracy": accuracy,
                        "seconds": spent,
                    }
                )
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return rows


def main() -> None:
    """Print all rows, and what they were made with, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--attacks", type=lambda text: text.split(","), default=list(ATTACKS))
    parser.add_argument("--points", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for folder in chosen.folders:
        rows += compare(folder, chosen.attacks, num_points=chosen.points, num_seeds=chosen.seeds)
    versions = {"jax": jax.__version__, "torch": torch.__version__, "torchattacks": torchattacks.__version__}
    json.dump({"epsilon": _EPSILON, "points": chosen.points, "versions": versions, "rows": rows}, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
