"""The pictures of an audit, and what has to be computed for them alone."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jl1 import records
from jl1.array_types import Inputs
from jl1.attacks.fgsm import predicted_labels
from jl1.attacks.objectives import margin
from jl1.attacks.pgd import pgd
from jl1.audit.auditing import Audit
from jl1.audit.order import Standing
from jl1.data import Split
from jl1.evaluation import accuracy_interval
from jl1.loss_surfaces import make_surface_step
from jl1.pictures.accuracies import AccuracyCurve, draw_accuracies
from jl1.pictures.gradients import draw_gradient_norms
from jl1.pictures.images import draw_adversarial_images
from jl1.pictures.segments import draw_segment_norms
from jl1.pictures.surfaces import draw_loss_surfaces
from jl1.pictures.trace import draw_trace
from jl1.runs.auditor import RunAudit

_NUM_SURFACES, _NUM_IMAGES = 4, 8


def draw_audit(workdir: Path, run: RunAudit) -> dict[str, str]:
    """Draw every picture that an audit has the figures for, into the run's audit folder.

    Args:
        workdir: Folder of the run.
        run: Its audit.

    Returns:
        What each picture shows, by the name of its file.

    Raises:
        UserError: matplotlib is not installed.
    """
    folder, trace = records.audit_folder(workdir), records.read_trace(workdir)
    pictures: dict[str, tuple[str, Callable[[Path], None] | None]] = {
        "accuracies.png": ("Accuracy against the radius, with 95 % intervals.", partial(_draw_accuracies, run.audit)),
        "surfaces.png": (
            "The loss along the FGSM direction and along random signs, in the plane of both and along each.",
            partial(_draw_surfaces, run),
        ),
        "gradients.png": (
            "Norms of the input gradients; a gradient that is exactly 0 stands apart.",
            partial(_draw_gradients, run.audit),
        ),
        "images.png": ("Points, what PGD on the margin makes of them, and what the network says.", _images(run)),
        "segments.png": (
            "Eq. 2 on the segments from points to their FGSM twins: the change of each margin against its bound.",
            partial(_draw_segments, run.audit) if run.audit.segments else None,
        ),
        "figure1.png": (
            "Figure 1 of the paper for real points: outputs and gradients at x and x' by epoch of the training.",
            partial(draw_trace, rows=trace) if trace else None,
        ),
    }
    for name, (_, draw) in pictures.items():
        (folder / name).unlink(missing_ok=True)
        if draw is not None:
            draw(folder / name)
    return {name: text for name, (text, draw) in pictures.items() if draw is not None}


def _draw_accuracies(audit: Audit, path: Path) -> None:
    """Draw the attacks that ran at several radii, and what is certified."""
    names = [name for name, _ in audit.standing]
    several = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    clean = audit.standing["clean", 0.0]
    certified = _curve(audit.certified, "certified", clean) if audit.certified else None
    draw_accuracies(path, attacked={name: _curve(audit.standing, name, clean) for name in several}, certified=certified)


def _curve(standing: Standing, name: str, clean: np.ndarray) -> AccuracyCurve:
    """Return the accuracy of one attack by radius, that without attack first."""
    radii = sorted(radius for each, radius in standing if each == name)
    verdicts = [clean, *(standing[name, radius] for radius in radii)]
    intervals = [accuracy_interval(int(stands.sum()), len(stands)) for stands in verdicts]
    return AccuracyCurve([0.0, *radii], [float(stands.mean()) for stands in verdicts], intervals)


def _draw_gradients(audit: Audit, path: Path) -> None:
    """Draw the norms of the losses' gradients."""
    draw_gradient_norms(path, norms=audit.gradient_norms, what="L1 norm of the loss's gradient")


def _some_points(run: RunAudit, count: int) -> Split:
    """Return the first points that the network has right."""
    split = run.trained.data.points(run.content["points"])
    chosen = np.flatnonzero(run.audit.standing["clean", 0.0])[:count]
    return Split(*(part[chosen] for part in split))


def _draw_surfaces(run: RunAudit, path: Path) -> None:
    """Compute the loss around a few points, and draw it."""
    points, trained = _some_points(run, _NUM_SURFACES), run.trained
    step = make_surface_step(trained.apply_fn)
    surfaces = step(
        trained.params, jnp.asarray(points.inputs), jnp.asarray(points.labels), run.audit.epsilon, trained.key
    )
    titles = [f"class {label}" for label in points.labels]
    arrays: dict[str, Any] = {name: np.asarray(values) for name, values in surfaces._asdict().items()}
    draw_loss_surfaces(path, titles=titles, **arrays)


def _images(run: RunAudit) -> Callable[[Path], None] | None:
    """Return what draws a few adversarial images, if the points are images."""
    if run.trained.data.test.inputs.ndim != 4:
        return None
    return partial(_draw_images, run)


def _draw_images(run: RunAudit, path: Path) -> None:
    """Attack a few points, and draw them."""
    points, trained = _some_points(run, _NUM_IMAGES), run.trained
    inputs, labels = jnp.asarray(points.inputs), jnp.asarray(points.labels)
    logits_fn = partial(trained.apply_fn, trained.params)
    options = {"labels": labels, "epsilon": run.audit.epsilon, "key": trained.key}
    attacked: Inputs = pgd(logits_fn, inputs, loss_fn=margin, num_steps=40, **options)
    draw_adversarial_images(
        path,
        clean=points.inputs,
        adversarial=np.asarray(attacked),
        labels=points.labels,
        predicted=np.asarray(predicted_labels(logits_fn, inputs)),
        adversarial_predicted=np.asarray(predicted_labels(logits_fn, attacked)),
    )


def _draw_segments(audit: Audit, path: Path) -> None:
    """Draw the audit of Eq. 2."""
    if audit.segments is not None:
        norms = audit.segments.norms
        arrays: dict[str, Any] = {
            name: np.asarray(getattr(norms, name)) for name in ("change", "supremum", "at_start", "at_end")
        }
        draw_segment_norms(path, radii=audit.segments.radii, **arrays)
