"""Options of a command that replace settings of its config file: one for every field of every table."""

import argparse
import difflib
from collections import Counter
from dataclasses import Field, fields, is_dataclass
from typing import Any, NoReturn, get_args, get_origin, get_type_hints

from ...moa_attention.training.field_docs import field_docs
from ...moa_attention.training.rules import rule_of
from .settings import FolderSettings, Settings

ARRAY = "data.folders"
Overrides = dict[str, Any]
"""Texts by `table.field`, or by `field` outside the tables; lists of texts for settings that have several values."""


def config_tables() -> dict[str, Any]:
    """The config classes by the names of their tables, in the order of a config file; `Settings` itself has none, ""."""
    hints = get_type_hints(Settings)
    kinds = {name: kind for name in hints for kind in (hints[name], *get_args(hints[name])) if is_dataclass(kind)}
    return {"": Settings, **kinds, ARRAY: FolderSettings}


def option_tables() -> dict[str, Any]:
    """Those whose settings are options: a file may have any number of tables `ARRAY`."""
    return {name: kind for name, kind in config_tables().items() if name != ARRAY}


def table_fields(table: str) -> list[Field[Any]]:
    """The fields of a table that are settings and no tables themselves."""
    tables = config_tables()
    return [entry for entry in fields(tables[table]) if f"{table}.{entry.name}".lstrip(".") not in tables]


def option_names(table: str, field: str) -> list[str]:
    """`--table.field`, and `--field` where no other table has a field of this name."""
    counted = Counter(entry.name for name in option_tables() for entry in table_fields(name))
    return [*([f"--{table}.{field}"] if table else []), *([f"--{field}"] if counted[field] == 1 else [])]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add an option for every setting. The arguments contain only those that are given."""
    for table, kind in option_tables().items():
        group = parser.add_argument_group(f"settings of [{table}]" if table else "settings outside the tables")
        docs, hints = field_docs(kind), get_type_hints(kind)
        for entry in table_fields(table):
            shape: dict[str, Any] = {"metavar": "VALUE"}
            if get_origin(hints[entry.name]) is tuple:
                shape["nargs"] = "*"
            elif hints[entry.name] is bool:
                shape |= {"nargs": "?", "const": "true"}
            group.add_argument(
                *option_names(table, entry.name), dest=f"{table}.{entry.name}", default=argparse.SUPPRESS,
                help=help_text(docs[entry.name], entry), **shape,
            )  # fmt: skip


def help_text(doc: str, entry: Field[Any]) -> str:
    """The meaning, the range and the default of a setting."""
    parts = [doc.rstrip("."), rule_of(entry).range()]
    if isinstance(entry.default, str | int | float) and entry.default != "":
        parts.append(f"Default: {entry.default}")
    return ". ".join(part for part in parts if part).replace("%", "%%")


def read_overrides(parser: argparse.ArgumentParser, argv: list[str]) -> tuple[argparse.Namespace, Overrides]:
    """The command's own arguments, and the settings among them. Exits with a sentence when an argument is unknown."""
    options, unknown = parser.parse_known_args(argv)
    if unknown:
        refuse(parser, unknown[0].split("=")[0])
    return options, {name.removeprefix("."): value for name, value in vars(options).items() if "." in name}


def refuse(parser: argparse.ArgumentParser, name: str) -> NoReturn:
    """Exit with a sentence on an unknown argument and the settings that it may mean."""
    wanted = name.removeprefix("--").replace("-", "_")
    known = [(table, entry.name) for table in option_tables() for entry in table_fields(table)]
    same = [f"--{table}.{field}" for table, field in known if field == wanted]
    if len(same) > 1:
        parser.exit(2, f"{parser.prog}: several tables have {name}. Use one of {', '.join(same)}.\n")
    names = [option for table, field in known for option in option_names(table, field)]
    near = difflib.get_close_matches(f"--{wanted}", names, n=2)
    advice = f"Perhaps you mean {' or '.join(near)}." if near else f"{parser.prog} --help lists all options."
    parser.exit(2, f"{parser.prog}: there is no option {name}. {advice}\n")
