"""The type of a pandas table in annotations."""

from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    Frame = Any  # a type checker cannot see columns, and takes every element for a union of all that one can be
else:
    Frame = pd.DataFrame
