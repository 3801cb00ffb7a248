"""Many runs from one config file: expanded, spread over processes, resumed."""

from jl1.sweep.expansion import SweepRun as SweepRun
from jl1.sweep.expansion import expand as expand
