"""Every picture from arrays as a run gives them, and from those that a broken network gives: a whole PNG each."""

import sys

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from jl1.errors import UserError
from jl1.pictures.accuracies import AccuracyCurve, draw_accuracies
from jl1.pictures.gradients import draw_gradient_norms
from jl1.pictures.images import draw_adversarial_images
from jl1.pictures.segments import draw_segment_norms
from jl1.pictures.style import have_matplotlib, require_matplotlib
from jl1.pictures.surfaces import draw_loss_surfaces
from jl1.pictures.trace import draw_trace

RNG = np.random.default_rng(0)
CURVE = AccuracyCurve((0.0, 0.1, 0.3), (0.9, 0.5, 0.1), ((0.85, 0.95), (0.4, 0.6), (0.05, 0.2)))


def traced(epoch, scale):
    values = {
        name: (scale * RNG.uniform(size=3)).tolist()
        for name in ("change", "gradient_norm", "twin_gradient_norm", "jacobian_norm")
    }
    return {"epoch": epoch, "epsilon": 0.1, "labels": [0, 1, 2], "logits": values, "probs": values}


def plane(margins):
    offsets = np.linspace(-0.1, 0.1, 5)
    losses = RNG.uniform(size=(2, 5, 5))
    return {"offsets": offsets, "losses": losses, "margins": margins * losses, "titles": ["digit 3", "digit 5"]}


def sheet(channels, **more):
    clean = RNG.uniform(size=(3, 8, 8, channels))
    labels = np.arange(3)
    adversarial = np.clip(clean + 0.1 * RNG.choice([-1, 0, 1], clean.shape), 0, 1)
    images = {"clean": clean, "adversarial": adversarial, "labels": labels, "predicted": labels}
    return images | {"adversarial_predicted": np.array([0, 2, 1])} | more


def segments(scale):
    fields = {name: scale * RNG.uniform(size=(20, 10)) for name in ("supremum", "at_start", "at_end")}
    return fields | {"change": scale * RNG.normal(size=(20, 10)), "radii": np.full(20, 0.1)}


STILL = sheet(1) | {"adversarial": np.zeros((3, 8, 8, 1)), "clean": np.zeros((3, 8, 8, 1))}
PICTURES = {
    "accuracies": (draw_accuracies, {"attacked": {"fgsm": CURVE, "pgd": CURVE}, "certified": CURVE}),
    "many attacks": (draw_accuracies, {"attacked": {f"attack {number}": CURVE for number in range(12)}}),
    "surfaces": (draw_loss_surfaces, plane(margins=RNG.normal(size=(2, 5, 5)))),
    "surfaces without a border": (draw_loss_surfaces, plane(margins=1.0)),
    "flat surfaces": (draw_loss_surfaces, plane(margins=1.0) | {"losses": np.zeros((2, 5, 5))}),
    "gradients": (draw_gradient_norms, {"norms": {"a": RNG.lognormal(size=50), "b": np.ones(9)}, "what": "norm"}),
    "gradients, some 0": (draw_gradient_norms, {"norms": {"a": np.array([0, 0, 1.0, 2.0])}, "what": "norm"}),
    "no gradients": (draw_gradient_norms, {"norms": {"a": np.zeros(5, np.float32)}, "what": "norm"}),
    "tiny gradients": (draw_gradient_norms, {"norms": {"a": np.array([0, 1e-38, 1e3])}, "what": "norm"}),
    "grey images": (draw_adversarial_images, sheet(1)),
    "images in colour": (draw_adversarial_images, sheet(3, class_names=["cat", "dog", "automobile"])),
    "images that stay": (draw_adversarial_images, STILL),
    "trace": (draw_trace, {"rows": [traced(epoch, 10.0**-epoch) for epoch in (1, 2, 3)]}),
    "trace of one epoch": (draw_trace, {"rows": [traced(1, 1.0)]}),
    "trace that dies": (draw_trace, {"rows": [traced(1, 1.0), traced(2, 0.0)]}),
    "segments": (draw_segment_norms, segments(1.0)),
    "segments of a constant": (draw_segment_norms, segments(0.0)),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_a_whole_png_of_readable_size(name, tmp_path):
    draw, options = PICTURES[name]
    before = dict(mpl.rcParams)
    draw(tmp_path / "picture.png", **options)
    with Image.open(tmp_path / "picture.png") as image:
        pixels = np.asarray(image.convert("L"))
    assert min(pixels.shape) >= 400
    assert len(np.unique(pixels)) > 20  # lines and letters
    for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
        assert edge.min() > 200  # nothing is cut off
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]
    assert dict(mpl.rcParams) == before


def test_the_same_arrays_give_the_same_bytes(tmp_path):
    draw, options = PICTURES["segments"]
    for name in ("one.png", "two.png"):
        draw(tmp_path / name, **options)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_without_matplotlib_the_message_says_what_to_install(tmp_path, monkeypatch):
    assert have_matplotlib()
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as if it were not there
    assert not have_matplotlib()
    with pytest.raises(UserError, match=r"pip install '\.\[plots\]'"):
        require_matplotlib()
    draw, options = PICTURES["accuracies"]
    with pytest.raises(UserError, match="matplotlib"):
        draw(tmp_path / "picture.png", **options)
    assert list(tmp_path.iterdir()) == []
