"""The figures of `docs/architecture.md` are drawn from the code as it is."""

import sys
from collections.abc import Callable
from pathlib import Path

import networkx
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT))

from devtools import architecture, draw_architecture, draw_attachment  # noqa: E402


@pytest.fixture(scope="module")
def graph() -> networkx.DiGraph:
    return architecture.rooms()


def test_every_folder_of_the_core_is_a_room_without_the_host(graph: networkx.DiGraph):
    core = {path.parent.relative_to(ROOT).as_posix() for path in (ROOT / "moa_attention").glob("*/__init__.py")}
    assert core <= set(graph)
    assert not [name for name in core if graph.nodes[name]["host"]]
    assert graph.nodes["nodes/host"]["host"]


def test_every_room_states_its_purpose(graph: networkx.DiGraph):
    assert all(facts["purpose"] for _, facts in graph.nodes(data=True))


def test_imports_are_read_off_the_code(graph: networkx.DiGraph):
    assert graph.has_edge("nodes/host", "moa_attention/method")
    assert not graph.has_edge("moa_attention/method", "moa_attention/run")


def test_every_import_points_down_and_the_drawn_ones_imply_the_others(graph: networkx.DiGraph):
    rows, ways = architecture.levels(graph)
    level = {name: i for i, row in enumerate(rows) for name in row}
    for way in ways:
        assert [level[name] for name in way] == list(range(level[way[0]], level[way[-1]] + 1))
    drawn = networkx.DiGraph((way[0], way[-1]) for way in ways)
    assert set(networkx.transitive_closure(drawn).edges) >= set(graph.edges)


@pytest.mark.parametrize("draw", [draw_architecture.draw_rooms, draw_attachment.draw_attachment])
def test_a_figure_fits_a_page(draw: Callable[[Path], None], tmp_path: Path):
    draw(tmp_path / "figure.png")
    with Image.open(tmp_path / "figure.png") as picture:
        assert 1000 < picture.width < 1400
        assert picture.getextrema() != ((255, 255),) * 4
