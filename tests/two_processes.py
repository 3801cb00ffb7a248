"""What `test_processes.py` starts twice: `python two_processes.py COORDINATOR PROCESS_ID FOLDER`, two devices each."""

import os
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from jl1.cli_flags import define_processes, parse
from jl1.devices import Devices
from jl1.errors import UserError
from jl1.gradients import make_gradient
from jl1.penalties import make_penalty
from jl1.runs.processes import any_process, check_same, from_first, is_first, join_by_flags, same_folder, smallest


def main(coordinator: str, process_id: str, folder: str) -> None:
    """Ask for everything in which processes must agree."""
    os.environ |= {"PMI_SIZE": "2", "PMI_RANK": process_id}
    join_by_flags(flags_of(f"--coordinator={coordinator}"))
    number = jax.process_index()
    assert (jax.process_count(), jax.device_count(), number) == (2, 4, int(process_id))
    assert is_first() == (number == 0)
    assert any_process(number == 1)
    assert not any_process(False)
    assert smallest(7 - number) == 6
    assert from_first(lambda: b"of the first" if is_first() else b"of another") == b"of the first"
    check_same({"the config": "alike"})
    assert "the data of process 1" in refusal(lambda: check_same({"the config": "alike", "the data": str(number)}))
    assert refusal(lambda: from_first(give_up)) == "the first gives up"
    look_into(Path(folder))
    train_on_four()


def flags_of(*arguments: str) -> flags.FlagValues:
    """Parse the flags of a command."""
    return parse(list(arguments), define_processes)


def refusal(fn) -> str:
    """Return what a user would be told."""
    try:
        fn()
    except UserError as error:
        return str(error)
    raise AssertionError("not refused")


def give_up() -> bytes:
    """Fail as a damaged file does."""
    raise UserError("the first gives up")


def look_into(folder: Path) -> None:
    """See the same files in both processes, and write for the first alone."""
    with same_folder(folder) as own:
        assert (own == folder) == is_first()
        assert (own / "config.json").read_text() == "{}"
        assert (own / "evaluation" / "some.npz").read_bytes() == b"123"
        (own / "written").write_text(str(jax.process_index()))


def train_on_four() -> None:
    """Compute a gradient on the devices of both, which is that of one."""
    devices = Devices()
    assert devices.describe() == "devices: 4 x cpu in 2 processes"
    random = np.random.default_rng(0)
    weights, inputs = random.normal(size=(5, 3)).astype(np.float32), random.normal(size=(6, 5)).astype(np.float32)
    penalty_fn = make_penalty("jacobian_l21_projected", num_draws=2)

    def terms_fn(logits_fn, inputs, *, labels, lam, epsilon, key):
        from jl1.losses import penalised_loss

        return penalised_loss(logits_fn, inputs, labels=labels, lam=lam, penalty_fn=penalty_fn, key=key)

    gradient_fn = make_gradient(lambda weights, inputs: jnp.tanh(inputs @ weights), terms_fn=terms_fn)
    options = {"lam": 0.5, "epsilon": 0.0, "key": jax.random.key(1)}
    expected, _ = jax.jit(gradient_fn)(weights, inputs, labels=np.arange(6) % 3, mask=np.ones(6, bool), **options)
    rows = devices.fill(np.arange(6)[None])[0]
    own = weights if is_first() else np.zeros_like(weights)  # those of the first count
    shared = jax.jit(devices.share_gradient(gradient_fn, batch_size=6))
    found, _ = shared(devices.replicate(own), inputs[rows], labels=rows % 3, mask=rows >= 0, **options)
    np.testing.assert_allclose(devices.fetch(found), expected, rtol=1e-5, atol=1e-6)


if __name__ == "__main__":
    main(*sys.argv[1:])
    sys.stdout.write("agreed\n")
