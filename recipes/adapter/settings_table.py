"""All settings of a config file as Markdown tables: `python recipes/run.py adapter.settings_table`.

With `--write` they replace docs/training-settings.md.
"""

import argparse
import json
from dataclasses import MISSING
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from tabulate import tabulate

from ...moa_attention.training.field_docs import field_docs
from ...moa_attention.training.rules import rule_of
from .overrides import config_tables, table_fields

TABLES = config_tables()
LONGEST = 90
"""Characters of a default in the table."""
PAGE = Path(__file__).resolve().parents[2] / "docs" / "training-settings.md"
HEAD = """# Settings of a training run

The command `.venv/bin/python recipes/run.py adapter.settings_table --write` makes this page from the settings' own descriptions. A run that is
resumed must keep the settings marked with *. All others may change.
"""


def settings_table(table: str) -> str:
    """Name, default, range and meaning of every setting of one table of the config file; * marks what a run keeps.

    Args: table: its name, "" for the settings outside the tables.
    """
    docs, types = field_docs(TABLES[table]), get_type_hints(TABLES[table])
    rows = [
        (
            f"`{field.name}`" + (" *" if rule_of(field).fixed else ""),
            default_of(field),
            choices_of(types[field.name]) or rule_of(field).range(),
            docs[field.name].replace("|", r"\|"),
        )
        for field in table_fields(table)
    ]
    return tabulate(rows, ("setting", "default", "values", "meaning"), tablefmt="pipe", disable_numparse=True)


def choices_of(type_: Any) -> str:
    """The values that a setting of a Literal type may have; empty for other types."""
    return ", ".join(f"`{json.dumps(value)}`" for value in get_args(type_)) if get_origin(type_) is Literal else ""


def default_of(field: Any) -> str:
    """As a config file has it; lists that are too long for a table by their length."""
    default = field.default
    if default is MISSING:
        return "required"
    if default is None:
        return "none"
    text = json.dumps(default)
    return f"`{text}`" if len(text) < LONGEST else f"{len(default)} entries"


def settings_page() -> str:
    """The tables, each under the name and the description of its part of the config file."""
    parts = [f"### {table_heading(table, kind)}\n\n{settings_table(table)}\n" for table, kind in TABLES.items()]
    return "\n".join([HEAD, *parts])


def main(argv: list[str]) -> None:
    """Print the page, or write it."""
    parser = argparse.ArgumentParser(prog="settings_table", description=__doc__)
    parser.add_argument("--write", action="store_true", help="replace docs/training-settings.md instead of printing")
    if parser.parse_args(argv).write:
        PAGE.write_text(settings_page(), encoding="utf-8")
    else:
        print(settings_page(), end="")


def table_heading(table: str, kind: type) -> str:
    """The name of a table and the description of its class."""
    if not table:
        return "Outside the tables"
    name, description = " ".join((kind.__doc__ or "").split()).split(": ", 1)
    return f"{name}\n\n{description[0].upper()}{description[1:]}"
