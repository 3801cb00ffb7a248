"""`python -m jl1` is the command `jl1`."""

import sys

from jl1.cli import main

sys.exit(main())
