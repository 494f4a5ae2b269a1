"""docs/host-interfaces.md lists each name of ComfyUI that the nodes use."""

import ast
import re

from devtools.host import ROOT
from devtools.interfaces import PAGE, host_names, table, used


def test_every_name_is_listed():
    found = [(module, name, ", ".join(files)) for (module, name), files in used().items()]
    assert [row[:3] for row in table("names")] == found, "Run .venv/bin/python -m devtools.interfaces"
    assert all(since for *_, since in table("names")), "Fill in the last column of a new name"


def test_names_are_found_behind_imports_aliases_and_attributes():
    code = """
import comfy.utils, torch
from comfy.sd import VAE as Vae
from comfy_api.latest import io
comfy.utils.load(torch.load(x), io.Int.Input("a"))
vae = Vae(sd=comfy.utils.state.items())
comfy.utils.flag = True
"""
    expected = {("comfy.utils", "load"), ("comfy.sd", "VAE"), ("comfy_api.latest", "io.Int.Input")}
    assert set(host_names(ast.parse(code))) == expected | {("comfy.utils", "state.items")}


def test_every_file_of_the_page_is_there():
    files = set(re.findall(r"[a-z_./]+\.py", PAGE.read_text(encoding="utf-8"))) - {"dev.py"}
    assert len(files) > 30 and [file for file in files if not (ROOT / "nodes" / file).is_file()] == []
