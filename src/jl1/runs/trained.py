"""The network of a run that has been trained, with its data: what is evaluated."""

from pathlib import Path
from typing import NamedTuple

from jl1 import records
from jl1.array_types import ApplyFn, Params, PRNGKey
from jl1.config import Config
from jl1.configuration.files import config_from_dict
from jl1.data import Dataset
from jl1.errors import UserError
from jl1.models import SequentialNet
from jl1.runs.checkpoints import Checkpoints
from jl1.runs.problems import attack_key, create_network, load_data
from jl1.runs.reporting import Reporter
from jl1.runs.trainer import check_same_data, snapshot_template


class Trained(NamedTuple):
    """The network of a run.

    Attributes:
        module: The layers of the network.
        apply_fn: The network.
        params: Its parameters: those of the newest checkpoint, the best if the config asks for them.
        epoch: Of that checkpoint.
        config: Settings of the run.
        data: What it was trained on.
        key: Root of the randomness of attacks.
    """

    module: SequentialNet
    apply_fn: ApplyFn
    params: Params
    epoch: int
    config: Config
    data: Dataset
    key: PRNGKey


def load_trained(workdir: Path, *, data_dir: str | None = None, reporter: Reporter | None = None) -> Trained:
    """Load the newest checkpoint of a run with its network and data.

    Args:
        workdir: Folder of the run.
        data_dir: Folder with the data, if it is not where it was in training.
        reporter: Told of damaged checkpoints.

    Returns:
        The network.

    Raises:
        UserError: No such run, no checkpoint, another model's or a damaged one, or other data.
    """
    config = config_from_dict(records.read_config(workdir))
    data = _load_data_again(config, data_dir)
    network = create_network(config, data)  # no plan of its gradient, which may not fit into this machine
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        restored = checkpoints.restore(snapshot_template(config, network.state), (reporter or Reporter()).notice)
    if restored is None:
        raise UserError(f"{workdir} has no checkpoint yet; `jl1 train` with its config goes on with it")
    check_same_data(restored, data)
    params = restored.snapshot.best_params or restored.snapshot.state.params
    return Trained(network.module, network.apply_fn, params, restored.epoch, config, data, attack_key(config, 2))


def _load_data_again(config: Config, data_dir: str | None) -> Dataset:
    """Load the data of a run, and say what to do if they are not where they were in training."""
    try:
        return load_data(config, data_dir)
    except UserError as error:
        if data_dir or not config.data.dir:
            raise
        raise UserError(
            f"{error}\nThat is where the run was trained; --data_dir=DIR says where its data are now"
        ) from error
