"""Choose the evaluation: `eval config.toml` evaluates an adapter, `eval` alone MoA Mini."""

import importlib


def main(argv: list[str]) -> None:
    """A first argument that is no option is a config file."""
    recipe = "adapter" if argv and not argv[0].startswith("-") else "mini.judging"
    importlib.import_module(f".{recipe}.evaluate", __package__).main(argv)
