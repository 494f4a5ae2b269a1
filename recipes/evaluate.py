"""Which evaluation is meant: `eval config.toml` is an adapter's, `eval` alone MoA Mini's."""

import importlib


def main(argv: list[str]) -> None:
    """A first argument that is no option is a config file."""
    kind = "adapter" if argv and not argv[0].startswith("-") else "mini"
    importlib.import_module(f".{kind}.evaluate", __package__).main(argv)
