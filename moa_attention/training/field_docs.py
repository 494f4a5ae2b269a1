"""The docstrings of a dataclass's fields, which Python does not keep, read from its source."""

from __future__ import annotations

import ast
import inspect
import textwrap
from dataclasses import is_dataclass
from itertools import pairwise


def field_docs(kind: type) -> dict[str, str]:
    """The docstring under each field, on one line; fields of base classes come first.

    Raises: OSError when the source is not available.
    """
    docs: dict[str, str] = {}
    for part in reversed(kind.__mro__):
        if not is_dataclass(part):
            continue
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(part))).body
        assert isinstance(definition, ast.ClassDef)
        for field, doc in pairwise(definition.body):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(doc, ast.Expr):
                docs[field.target.id] = " ".join(ast.literal_eval(doc.value).split())
    return docs
