"""Jacobian regularisation and honest adversarial robustness in JAX.

Every public name is importable from here and loaded on first use, so `import jl1` itself is quick and
brings in nothing else.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
