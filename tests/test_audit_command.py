"""`jl1 audit` as a user runs it: on a trained run, to lines, a page, pictures and JSON."""

import json
import shutil

import pytest
from quick import OVERRIDES, run_jl1

from jl1.errors import UserError
from jl1.runs.auditor import AuditOptions, audit_run

FLAGS = ("--epsilon=0.1", "--max_points=60", "--num_examined=20", "--batch_size=60")


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    """A short run, and what `jl1 audit` says of it."""
    cwd = tmp_path_factory.mktemp("user")
    status, output = run_jl1("train", "--config=quickstart:plain", *OVERRIDES, "--workdir=run", cwd=cwd)
    assert status == 0, output
    status, output = run_jl1("audit", "--workdir=run", *FLAGS, "--transfer_from=run", cwd=cwd)
    return cwd, status, output


def content(cwd):
    return json.loads((cwd / "run" / "audit" / "audit.json").read_text())


def test_a_line_a_check_and_a_conclusion(audited):
    cwd, status, output = audited
    assert status == 0, output
    audit = content(cwd)
    for check in audit["checks"]:
        assert f"{check['outcome']}  {check['name']}: {check['figure']}" in output
        assert (f"-> {check['advice']}" in output) or check["outcome"] == "PASS"
    assert audit["sentence"] in output
    assert audit["is_masked"] is False
    assert audit["finding"] in ("single step only", "not robust", "holds")
    assert {check["topic"] for check in audit["checks"]} == {"hygiene", "order", "gradients", "unit test", "defence"}
    assert "SKIP" not in {check["outcome"] for check in audit["checks"]}  # a source of transfer was given


def test_the_figures_are_those_of_the_verdicts(audited):
    cwd, _, _ = audited
    audit = content(cwd)
    assert (audit["schema"], audit["epsilon"], audit["num_examples"], audit["num_points"]) == (
        "jl1.audit/1",
        0.1,
        60,
        500,
    )
    accuracies = {(row["attack"], row["epsilon"]): row["accuracy"] for row in audit["accuracies"]}
    assert accuracies["clean", 0.0] > accuracies["fgsm", 0.1] >= accuracies["standard", 0.1]
    assert accuracies["certified", 0.1] <= accuracies["standard", 0.1]
    for row in audit["accuracies"]:
        assert row["accuracy"] * 60 == pytest.approx(round(row["accuracy"] * 60))
        assert row["interval"][0] <= row["accuracy"] <= row["interval"][1]


def test_the_page_shows_every_picture_there_is(audited):
    cwd, _, _ = audited
    folder = cwd / "run" / "audit"
    page = (folder / "audit.md").read_text()
    assert content(cwd)["sentence"] in page
    pictures = {path.name for path in folder.glob("*.png")}
    assert pictures == {
        "accuracies.png",
        "surfaces.png",
        "gradients.png",
        "images.png",
        "segments.png",
        "figure1.png",
    }
    for name in pictures:
        assert f"]({name})" in page
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    assert str(cwd) not in page


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "needs --workdir"),
        (("--workdir=run", "--epsilon=0"), "radius 0"),
        (("--workdir=run", "--epsilon=8"), "8/255"),
        (("--workdir=run", "--budget=ful"), "did you mean full?"),
        (("--workdir=nowhere",), "not the folder of a jl1 run"),
        (("--workdir=run", "--transfer_from=nowhere"), "not the folder of a jl1 run"),
    ],
)
def test_bad_flags_are_refused_before_anything_is_attacked(audited, flags, message):
    cwd, _, _ = audited
    before = content(cwd)
    status, output = run_jl1("audit", *flags, cwd=cwd)
    assert status == 2
    assert message in output
    assert content(cwd) == before


def test_a_folder_without_a_checkpoint_is_refused(audited, tmp_path):
    cwd, _, _ = audited
    shutil.copy(cwd / "run" / "config.json", tmp_path)
    with pytest.raises(UserError, match="no checkpoint yet"):
        audit_run(tmp_path, options=AuditOptions())
