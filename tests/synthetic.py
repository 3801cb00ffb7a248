"""Folders of runs made from one real result.json, with settings and accuracies of one's choice."""

import copy
import json

COUNT = 10_000


def accuracy_row(attack, epsilon, accuracy, *, labels="true", num_examples=COUNT, **strength):
    """Return a row of `accuracies`."""
    row = {"attack": attack, "epsilon": epsilon, "labels": labels, "accuracy": accuracy, "num_examples": num_examples}
    return row | strength


def evaluated_row(attack, epsilon, accuracy, *, epoch, **strength):
    """Return a row of evaluation.json."""
    added = {"interval": [0.1, 0.9], "points": "test", "num_points": COUNT, "broken_by": {}, "epoch": epoch}
    return accuracy_row(attack, epsilon, accuracy, **strength) | added


def result_like(result, *, lam=0.0, seed=0, accuracies=((("clean", 0.0), 0.98), (("fgsm", 0.3), 0.2)), **fields):
    """Return a result.json like a real one; `fields` are dotted names of the config with __ for the dot."""
    made = copy.deepcopy(result)
    made["seed"] = seed
    settings = {"seed": seed, "data__name": "mnist", "penalty__lam": lam, "adversarial__epsilon": 0.0} | fields
    settings = {"penalty__name": "jacobian_l1", "penalty__outputs": "probs"} | settings
    for name, value in settings.items():
        *topics, field = name.split("__")
        topic = made["config"]
        for part in topics:
            topic = topic[part]
        topic[field] = value
    made["accuracies"] = [accuracy_row(*measure, accuracy) for measure, accuracy in accuracies]
    return made


def write_run(folder, result, *, evaluation=None, metrics=None):
    """Write the folder of a run."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(result["config"]))
    (folder / "result.json").write_text(json.dumps(result))
    if evaluation is not None:
        content = {"schema": "jl1.evaluation/1", "accuracies": evaluation}
        (folder / "evaluation.json").write_text(json.dumps(content))
    if metrics is not None:
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in metrics))
    return folder


def write_seeds(folder, result, accuracies, *, lam=0.0, attack=("fgsm", 0.3), name="run", **fields):
    """Write a run for each accuracy under one attack; the seed is its place."""
    for seed, accuracy in enumerate(accuracies):
        made = result_like(
            result, lam=lam, seed=seed, accuracies=((("clean", 0.0), 0.98), (attack, accuracy)), **fields
        )
        write_run(folder / f"{name}-lam{lam:g}-seed{seed}", made)
