"""Everything that the nodes use of the host is in the host, entry by entry of docs/host-interfaces.md: a break has a name."""

from __future__ import annotations

import importlib
import inspect
import re
from functools import reduce

import pytest

from devtools.interfaces import table


@pytest.mark.parametrize("row", table("names"), ids=lambda row: f"{row[0]}.{row[1]}")
def test_interface_name(row: tuple[str, ...]):
    module, name, *_ = row
    *owner, last = name.split(".")
    assert hasattr(reduce(getattr, owner, importlib.import_module(module)), last)


@pytest.mark.parametrize("row", table("members"), ids=lambda row: f"{row[0]}.{row[1]}")
def test_interface_members(row: tuple[str, ...]):
    """Each is found on the class, or as an attribute of `self` in its code."""
    module, name, members, *_ = row
    owner = reduce(getattr, name.split("."), importlib.import_module(module))
    source = "".join(
        inspect.getsource(kind) for kind in owner.__mro__ if kind.__module__.startswith(("comfy", "server"))
    )
    missing = [m for m in members.split(", ") if not hasattr(owner, m) and not re.search(rf"\bself\.{m}\b", source)]
    assert not missing


@pytest.mark.parametrize("row", table("keys"), ids=lambda row: f"{row[0]}: {row[1]}")
def test_interface_keys(row: tuple[str, ...]):
    module, keys, *_ = row
    source = inspect.getsource(importlib.import_module(module))
    assert not [key for key in keys.split(", ") if not re.search(rf"[\"']{re.escape(key)}[\"']", source)]
