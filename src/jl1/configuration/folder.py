"""Where the config files lie that come with jl1, and their names."""

from pathlib import Path


def config_folder() -> Path:
    """Return the folder of the config files: inside the installed package, or the checkout's `configs`."""
    package = Path(__file__).parents[1]
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent.parent / "configs"


def config_names() -> list[str]:
    """List the configs that come with jl1."""
    return sorted(path.stem for path in config_folder().glob("*.py"))
