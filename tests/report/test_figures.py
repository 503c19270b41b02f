"""Figures: what is drawn where, and what becomes of it in a file."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from recbench.report.blocks import slug
from recbench.report.figures.bars import by_group, depths
from recbench.report.figures.drawing import Drawing
from recbench.report.figures.forest import forest
from recbench.report.figures.lines import curves
from recbench.report.figures.pareto import pareto
from recbench.report.figures.ranks import critical_difference
from recbench.report.figures.shapes import Bars, Effect, Histogram, Line, Point, Ranks
from recbench.report.figures.style import DARK, DISTINCT, PALETTE, short, styles


def luminance(color: str) -> float:
    """Relative luminance, WCAG 2.1."""
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("palette", [PALETTE, DARK], ids=["light", "dark"])
def test_text_and_marks_stand_out_from_the_page(palette: dict[str, str]) -> None:
    assert contrast(palette["ink"], palette["paper"]) >= 7
    assert contrast(palette["muted"], palette["paper"]) >= 4.5
    assert contrast(palette["ink"], palette["band"]) >= 7
    for n in range(1, DISTINCT + 1):
        assert contrast(palette[f"c{n}"], palette["paper"]) >= 3, n
    for name in ("c1", "c2"):  # words are set in these
        assert contrast(palette[name], palette["paper"]) >= 4, name


COLOUR_BLIND = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
"""Linear RGB as such eyes see it: Machado, Oliveira and Fernandes (2009), severity 1."""


def seen(color: str, matrix: list[list[float]]) -> np.ndarray:
    """CIE L*a*b* of a colour as those eyes see it."""
    parts = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = to_xyz @ np.clip(np.array(matrix) @ linear, 0, 1) / np.array([0.9505, 1.0, 1.089])
    fx, fy, fz = (np.cbrt(v) if v > 0.008856 else 7.787 * v + 16 / 116 for v in (x, y, z))
    return np.array([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)])


@pytest.mark.parametrize("eyes", list(COLOUR_BLIND))
@pytest.mark.parametrize("palette", [PALETTE, DARK], ids=["light", "dark"])
def test_no_two_colours_look_alike_to_colour_blind_eyes(palette: dict[str, str], eyes: str) -> None:
    names = [f"c{n}" for n in range(1, DISTINCT + 1)]
    colours = {name: seen(palette[name], COLOUR_BLIND[eyes]) for name in names}
    for one, other in combinations(names, 2):
        assert np.linalg.norm(colours[one] - colours[other]) > 9, (one, other)  # 2.3 is just noticeable


def test_each_colour_has_one_name_and_both_themes_have_all_names() -> None:
    assert len(set(PALETTE.values())) == len(PALETTE)
    assert PALETTE.keys() == DARK.keys()


def test_no_two_systems_share_marker_dash_or_colour() -> None:
    found = styles([f"s{i}" for i in range(DISTINCT)]).values()
    for part in ("color", "marker", "dash"):
        assert len({getattr(style, part) for style in found}) == DISTINCT


def test_with_too_many_systems_the_named_ones_are_distinct() -> None:
    labels = [f"s{i}" for i in range(40)]
    found = styles(labels, ["s39", "s20"])
    assert sum(style.distinct for style in found.values()) == DISTINCT
    assert found["s39"].distinct
    assert found["s20"].distinct


def test_a_long_label_loses_its_middle() -> None:
    assert short("sasrec") == "sasrec"
    assert short("a" * 20 + "b" * 20, 11) == "aaaaa\N{HORIZONTAL ELLIPSIS}bbbbb"


def test_a_forest_with_an_endless_interval_still_has_an_axis() -> None:
    inf = float("inf")
    effects = [
        Effect(label="a", against="b", mean=0.01, low=-inf, high=inf, rope=0.001, kind="undecided"),
        Effect(label="c", against="b", mean=-0.02, low=-0.03, high=-0.01, rope=0.001, kind="worse"),
    ]
    (ax,) = forest(effects, "NDCG@10").axes
    low, high = ax.get_xlim()
    assert -0.04 < low < -0.03
    assert 0.01 < high < 0.02
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a", "c"]


def test_labels_of_a_critical_difference_diagram_lie_left_of_their_line_and_inside() -> None:
    ranks = Ranks(
        labels=("best", "x" * 40, "worst"), mean_ranks=(1.0, 2.2, 2.8), critical=1.5, cliques=((0, 1), (1, 2))
    )
    figure = critical_difference(ranks)
    (ax,) = figure.axes
    figure.canvas.draw()
    names = [
        t for t in ax.texts if t.get_text()[-3:] in ("00", "20", "80") or t.get_text()[-4:] in ("1.00", "2.20", "2.80")
    ]
    assert len(names) == 3
    for text, mean in zip(names, ranks.mean_ranks, strict=True):
        box = text.get_window_extent().transformed(ax.transData.inverted())
        assert box.x1 <= mean
        assert box.x0 >= ax.get_xlim()[0] - 1e-6
    thick = [line for line in ax.lines if line.get_linewidth() == 4]
    assert len(thick) == 2


def test_the_front_is_filled_and_what_is_beaten_is_hollow() -> None:
    points = [Point(label="a", cost=1, quality=0.1, front=True), Point(label="b", cost=2, quality=0.05, front=False)]
    (ax,) = pareto(points, styles(["a", "b"]), ("ms", "NDCG")).axes
    faces = {line.get_xdata()[0]: line.get_markerfacecolor() for line in ax.lines if len(line.get_xdata()) == 1}
    assert faces[2] == PALETTE["paper"] != faces[1]


def test_wide_costs_stand_on_a_logarithmic_axis_and_none_of_zero() -> None:
    def scale(*costs: float) -> str:
        points = [Point(label="a", cost=c, quality=0.1, front=True) for c in costs]
        return str(pareto(points, styles(["a"]), ("x", "y")).axes[0].get_xscale())

    assert scale(1, 100) == "log"
    assert scale(1, 2) == "linear"
    assert scale(0, 100) == "linear"


def drawing(name: str = "a-figure") -> Drawing:
    line = Line(label="_a$b$ <i>", x=(1, 2, 3), y=(0.1, 0.2, 0.15), picked=1, breaks=(2.5,))
    return Drawing(name, "A title", "What it shows", lambda: curves([line], styles([line.label]), ("epoch", "y")))


def test_an_inline_figure_has_its_own_ids_and_no_trace_of_anything_else() -> None:
    text = drawing().inline()
    assert text.startswith("<svg ")
    assert "http" not in text
    assert "<style" not in text
    assert "DejaVu" not in text
    assert "_a$b$ &lt;i&gt;" in text
    assert all(name.startswith("a-figure-") for name in __import__("re").findall(r' id="([^"]+)"', text))
    assert "var(--c1)" in text


def test_files_are_written_in_three_formats_and_are_the_same_each_time(tmp_path: Path) -> None:
    starts = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}
    for home in (tmp_path / "one", tmp_path / "two"):
        home.mkdir()
        paths = drawing().save(home)
        assert {p.suffix for p in paths} == set(starts)
    for path in (tmp_path / "one").iterdir():
        content = path.read_bytes()
        assert content.startswith(starts[path.suffix])
        assert content == (tmp_path / "two" / path.name).read_bytes()
    assert PALETTE["c1"] in (tmp_path / "one" / "a-figure.svg").read_text()


def test_groups_without_a_value_and_histograms_of_any_depths_are_drawn() -> None:
    bars = Bars(groups=("cold", "head"), sizes=(0, 12000), values={"a": (None, 0.2), "b": (0.1, 0.1)})
    (ax,) = by_group(bars, styles(["a", "b"]), "HR@10").axes
    assert [t.get_text() for t in ax.get_yticklabels()] == ["cold\n0 users", "head\n12 000 users"]
    panels = depths(
        [Histogram(label="a", at=(1, 4), shares=(0.5, 0.5)), Histogram(label="b", at=(2,), shares=(1.0,))]
    ).axes
    assert [len(ax.patches) for ax in panels] == [2, 1]


def test_names_in_other_letters_give_files_of_their_own() -> None:
    one, other = "\N{CJK UNIFIED IDEOGRAPH-4E2D}", "\N{CJK UNIFIED IDEOGRAPH-6587}"
    assert slug("forest", "beauty") == "forest-beauty"
    assert slug("forest", one) != slug("forest", other)
    assert re.fullmatch("forest-[0-9a-f]{8}", slug("forest", one))
