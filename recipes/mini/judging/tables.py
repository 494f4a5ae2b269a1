"""Tables of measurements that take minutes a row."""

import sys
from collections.abc import Iterable, Mapping

from tabulate import tabulate


def print_table(rows: Iterable[Mapping[str, object]]) -> None:
    """Markdown on standard output when all rows are measured, and each row on standard error as soon as it is."""
    measured = []
    for row in rows:
        measured.append(row)
        print(", ".join(f"{column} {value}" for column, value in row.items()), file=sys.stderr, flush=True)
    print(tabulate(measured, headers="keys", tablefmt="github", disable_numparse=True))
