"""The kinds of adapter files that can be loaded: a new kind is one file in `adapters/`, one here, and one entry below."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..method.factory import Factory
from .adapter import plan_adapter
from .ip_adapter.importing import is_ip_adapter, plan_ip_adapter
from .plan import LoadedFile, Plan, load_planned
from .tensors import StoredFile


class AdapterFormat(NamedTuple):
    """How one kind of file is recognised and loaded."""

    recognises: Callable[[StoredFile], bool]
    plan: Callable[[StoredFile, Factory], Plan]
    """The adapter on the meta device, by names and shapes alone.

    Raises: StoredFileError when the contents do not fit together."""


FORMATS: dict[str, AdapterFormat] = {
    # A file that nothing recognises gets the message of the kind that its container suggests.
    "IP-Adapter": AdapterFormat(lambda stored: is_ip_adapter(stored.tensors) or stored.header is None, plan_ip_adapter),
    "MoA": AdapterFormat(lambda stored: True, plan_adapter),
}
"""By name, in the order in which they are tried."""


def register_format(name: str, form: AdapterFormat) -> None:
    """Add a kind of file; it is tried before those that are there."""
    earlier = dict(FORMATS)
    FORMATS.clear()
    FORMATS.update({name: form, **{key: value for key, value in earlier.items() if key != name}})


def load_stored(stored: StoredFile, factory: Factory) -> LoadedFile:
    """The adapter of an open file.

    Raises: StoredFileError when no kind fits, or the contents do not fit together.
    """
    form = next(form for form in FORMATS.values() if form.recognises(stored))
    return load_planned(stored, form.plan(stored, factory))
