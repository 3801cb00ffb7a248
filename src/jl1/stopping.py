"""When training ends: rules on the validation accuracies so far, one function each."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple


class StoppingOptions(NamedTuple):
    """What the rules are set by.

    Attributes:
        tolerance: Smallest change of accuracy, a fraction, that counts (Sec. 4.1: 0.0001).
        num_epochs: Epochs without a rise, or before the rule may stop (Sec. 4.1: 10).
    """

    tolerance: float = 1e-4
    num_epochs: int = 10


def fixed(accuracies: Sequence[float], options: StoppingOptions) -> bool:
    """Never stop before the last epoch (Sec. 4.2: "we train for one hundred epochs")."""
    del accuracies, options
    return False


def patience(accuracies: Sequence[float], options: StoppingOptions) -> bool:
    """Stop once the accuracy has not risen by more than the tolerance for so many epochs.

    The first reading of Sec. 4.1, "until their accuracy on the validation set stop increasing (...) after
    10 epochs".

    Args:
        accuracies: Validation accuracy after each epoch so far.
        options: Tolerance and number of epochs.

    Returns:
        Whether to stop now.

    Example:
        >>> patience([0.5, 0.9, 0.9, 0.9], StoppingOptions(num_epochs=2))
        True
    """
    best, waited = float("-inf"), 0
    for accuracy in accuracies:
        best, waited = (accuracy, 0) if accuracy > best + options.tolerance else (best, waited + 1)
    return waited >= options.num_epochs


def successive_difference(accuracies: Sequence[float], options: StoppingOptions) -> bool:
    """Stop when two successive epochs differ by less than the tolerance, after so many epochs.

    The second reading of Sec. 4.1, "difference of accuracy between 2 epochs less than 0.0001".

    Args:
        accuracies: Validation accuracy after each epoch so far.
        options: Tolerance and number of epochs.

    Returns:
        Whether to stop now.

    Example:
        >>> successive_difference([0.5, 0.9, 0.9], StoppingOptions(num_epochs=2))
        True
    """
    if len(accuracies) <= max(options.num_epochs, 1):
        return False
    return abs(accuracies[-1] - accuracies[-2]) < options.tolerance


STOPPING: Mapping[str, Callable[[Sequence[float], StoppingOptions], bool]] = {
    "fixed": fixed,
    "patience": patience,
    "successive_difference": successive_difference,
}
"""The rules by the names that a config uses."""
