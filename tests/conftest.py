"""What every test runs under: shapes checked, no silent broadcasting, nothing written to the home folder."""

import signal

import jaxtyping
import pytest

jaxtyping.install_import_hook("jl1", "beartype.beartype")  # before anything imports jl1

# A shell starts what is in its background with Control-C ignored, which the programs that tests start would inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import jax  # noqa: E402

# In every test: shapes that differ by an axis are a slip until someone writes the axis out.
jax.config.update("jax_numpy_rank_promotion", "raise")
# As the command line does: a GPU rounds the factors of products to three digits otherwise.
jax.config.update("jax_default_matmul_precision", "float32")


@pytest.fixture(scope="session", autouse=True)
def _cache_folder(tmp_path_factory):
    """Keep decoded data out of the home folder, in this process and in those that tests start."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("jl1_cache")
        patch.setenv("JL1_CACHE_DIR", str(folder))
        # whole runs compile the same few programs over and over, here and in processes of their own
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(folder / "xla"))
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        jax.config.update("jax_compilation_cache_dir", str(folder / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        yield


@pytest.fixture
def strict_dtypes():
    """Refuse to mix dtypes. Around maths only: optax.adam mixes them."""
    with jax.numpy_dtype_promotion("strict"):
        yield


def pytest_addoption(parser):
    """Let all tests run on programs compiled as users' are, whose rounding is another one."""
    parser.addoption("--optimised", action="store_true", help="with all of XLA's optimisations, in twice the time")


@pytest.fixture
def quick_compile(request):
    """Leave out most of XLA's optimisations: the same numbers for half of the compilation, most of a test's time."""
    jax.config.update("jax_disable_most_optimizations", not request.config.getoption("--optimised"))
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def unchecked_shapes():
    """Check no annotation, as where jl1 is used: what is refused then is refused by jl1 itself."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def x64():
    """Compute in float64."""
    with jax.enable_x64(True):
        yield


def pytest_collection_modifyitems(items):
    """Skip what needs a CUDA device where there is none."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked and not _has_gpu():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def _has_gpu():
    """Ask jax, which raises where it has no such backend."""
    try:
        return bool(jax.devices("gpu"))
    except RuntimeError:
        return False
