"""The page: complete, valid, harmless, and readable by everyone."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recbench import experiment
from recbench.cli.app import run
from recbench.comparison import Settings
from recbench.data.dataset import open_dataset
from recbench.evaluation.by_user import Places
from recbench.evaluation.metrics import parse
from recbench.experiment import Order
from recbench.report import html
from recbench.report.gather import gather
from recbench.report.page import assemble
from recbench.runs.folder import LOG, STEPS_TABLE, USERS, Run
from recbench.runs.sources import read
from recbench.settings import Asked, resolve
from recbench.training.loop import Watcher
from tests.report.given import HOSTILE, beams, cuts, log, skill, steps, study
from tests.run_folders import make_run, ranks
from tests.systems import CPU

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")
VOID = {"meta", "input", "br", "link", "img", "hr"}
N = 600


@dataclass
class Node:
    tag: str
    attributes: dict[str, str]
    parent: Node | None = None
    children: list[Node] = field(default_factory=list)
    text: str = ""

    def all(self, *tags: str) -> list[Node]:
        found = [self] if self.tag in tags else []
        return found + [node for child in self.children for node in child.all(*tags)]

    @property
    def whole_text(self) -> str:
        return self.text + "".join(child.whole_text for child in self.children)


class Tree(HTMLParser):
    """A tree of the page; an end tag without its start fails."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.root = self.at = Node("", {})
        self.feed(page)
        assert self.at is self.root, f"<{self.at.tag}> is not closed"

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        node = Node(tag, {name: value or "" for name, value in attrs}, self.at)
        self.at.children.append(node)
        if tag not in VOID:
            self.at = node

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.at.children.append(Node(tag, {name: value or "" for name, value in attrs}, self.at))

    def handle_endtag(self, tag: str) -> None:
        assert self.at.tag == tag, f"</{tag}> closes <{self.at.tag}>"
        assert self.at.parent is not None
        self.at = self.at.parent

    def handle_data(self, data: str) -> None:
        self.at.text += data


def page(home: Path, datasets: Path = Path("none"), **settings: Any) -> str:
    return html.render(assemble(gather(read([home]), Settings(**settings), datasets, ("recbench",))))


def headings(text: str) -> list[str]:
    return [node.whole_text for node in Tree(text).root.all("h2")]


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Five datasets, every head, two seeds, logs, steps, depths, a slice of the user's own."""
    home = tmp_path_factory.mktemp("full")
    study(home / "runs", ("beauty", "office", "toys", "games", "sports"), n=N)
    return page(home / "runs", slices=(f"{cuts(home / 'cuts.csv', N)}:age",))


def test_every_part_is_there_and_the_verdict_comes_first(full: str) -> None:
    found = headings(full)
    assert found == [
        "Verdict",
        "Results",
        "Over datasets",
        "Learning curves",
        "Reasoning steps at test",
        "Depth",
        "Quality and cost",
        "Runs",
        "What is missing",
    ]
    names = {node.attributes["id"] for node in Tree(full).root.all("figure")}
    wanted = {"forest-beauty", "slices-beauty-age", "critical-difference-ndcg-10", "learning-toys", "steps-toys"}
    assert wanted | {"depth-games", "pareto-beauty-ms-per-user", "pareto-beauty-n-parameters"} <= names


def test_the_p_of_slices_say_their_family(full: str) -> None:
    assert "p: Holm over the 14 comparisons of this table." in full


def test_the_page_asks_the_network_for_nothing(full: str) -> None:
    assert "://" not in full
    assert not re.search(r"@import|url\((?!#)", full)
    policy = next(m for m in Tree(full).root.all("meta") if m.attributes.get("http-equiv"))
    assert "default-src 'none'" in policy.attributes["content"]
    for node in Tree(full).root.all("link", "iframe", "img", "object", "embed"):
        pytest.fail(f"<{node.tag}> {node.attributes}")
    assert all("src" not in node.attributes for node in Tree(full).root.all("script"))


def test_ids_are_unique_and_every_reference_has_its_target(full: str) -> None:
    root = Tree(full).root
    nodes = root.all(*{n.tag for n in _flat(root)})
    ids = Counter(node.attributes["id"] for node in nodes if "id" in node.attributes)
    assert [name for name, times in ids.items() if times > 1] == []
    for node in nodes:
        for key in ("href", "aria-labelledby", "aria-describedby", "aria-controls"):
            if (value := node.attributes.get(key)) is not None:
                assert value.removeprefix("#") in ids, f"{key} {value}"
        for name in re.findall(r"url\(#([^)]+)\)", " ".join(node.attributes.values())):
            assert name in ids


def _flat(node: Node) -> list[Node]:
    return [node, *(n for child in node.children for n in _flat(child))]


def test_every_figure_says_what_it_shows_in_words_and_in_a_table(full: str) -> None:
    figures = Tree(full).root.all("figure")
    assert len(figures) > 30
    for figure in figures:
        (svg,) = figure.all("svg")
        assert svg.attributes["role"] == "img"
        assert len(svg.all("title")[0].whole_text) > 10
        assert len(svg.all("desc")[0].whole_text) > 30
        assert svg.all("text"), "text is text, not outlines"
        assert figure.all("figcaption")
        assert len(figure.all("table")[0].all("tbody")[0].all("tr")) > 0


def test_figures_take_their_colours_from_the_page(full: str) -> None:
    for svg in Tree(full).root.all("svg"):
        told = " ".join(" ".join(node.attributes.values()) for node in _flat(svg))
        assert "var(--ink)" in told
        assert not re.search(r"#[0-9a-fA-F]{6}\b", told)
        assert "font-family" not in told


def test_tables_have_captions_and_scopes_and_rows_as_wide_as_their_heads(full: str) -> None:
    tables = Tree(full).root.all("table")
    assert len(tables) > 40
    for table in tables:
        assert table.all("caption")[0].whole_text.strip()
        assert {cell.attributes.get("scope") for cell in table.all("thead")[0].all("th")} == {"col"}
        width = len(table.all("thead")[0].all("th"))
        for row in [*table.all("tbody")[0].all("tr"), *(r for foot in table.all("tfoot") for r in foot.all("tr"))]:
            assert row.children[0].attributes.get("scope") == "row"
            assert len(row.all("td", "th")) == width


def test_best_is_bold_second_underlined_and_both_said_aloud(tmp_path: Path) -> None:
    for name, share in (("popularity", 0.1), ("markov", 0.3), ("sasrec", 0.2)):
        make_run(tmp_path, name, ranks(np.where(np.arange(200) < 200 * share, 0, 99)))
    (table,) = [t for t in Tree(page(tmp_path)).root.all("table") if t.attributes["id"] == "table-beauty"]
    rows = {row.children[0].whole_text: row for row in table.all("tbody")[0].all("tr")}
    assert [n.whole_text for n in rows["markov"].all("strong")] == ["0.3000", "0.3000"]
    assert [n.whole_text for n in rows["sasrec"].all("u")] == ["0.2000", "0.2000"]
    assert "(best)" in rows["markov"].whole_text
    assert rows["popularity"].all("strong", "u") == []


def test_a_hostile_name_is_only_a_name(tmp_path: Path) -> None:
    table = tmp_path / "evil.csv"
    lines = [f'"{HOSTILE.replace(chr(34), chr(34) * 2)}",beauty,0,{u},5,{1 + u % 9}' for u in range(50)]
    lines += [f"_plain,beauty,0,{u},5,{1 + u % 7}" for u in range(50)]
    table.write_text("system,dataset,seed,user,target,rank\n" + "\n".join(lines) + "\n", encoding="utf-8")
    text = page(table)
    root = Tree(text).root
    assert len(root.all("script")) == 1
    assert "<script>alert" not in text
    assert any(HOSTILE in node.whole_text for node in root.all("th"))
    assert any("$a_b" in node.whole_text for svg in root.all("svg") for node in svg.all("text"))


def test_one_run_alone_is_shown_and_nothing_is_compared(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "sasrec", skill(0.2, 1, N), metrics={"test": {"ndcg@10": 0.0421}})
    log(folder, 0.06, 5)
    text = page(tmp_path)
    assert headings(text) == ["Verdict", "Results", "Learning curves", "Runs", "What is missing"]
    assert "Nothing is compared" in text
    derived = Places.of(Run.open(folder)).values(parse("ndcg@10"), "all", "expected").mean()
    assert f"{derived:.4f}" in text
    assert "0.0421" not in text  # what run.json states, if that is not what follows from its ranks


def test_a_missing_or_torn_file_costs_a_figure_and_is_named(tmp_path: Path) -> None:
    study(tmp_path, n=N, seeds=1)
    (tmp_path / "beauty-sasrec-pause-s0" / LOG).unlink()
    (tmp_path / "beauty-sasrec-lares-s0" / LOG).write_text('{"stage": "spt", "epo')
    (tmp_path / "beauty-sasrec-diffuse-s0" / STEPS_TABLE).write_text("not,a\ntable,")
    make_run(tmp_path, "ease", skill(0.1, 1, N), status="failed", error={"what": "No space is left."})
    text = page(tmp_path)
    missing = next(t for t in Tree(text).root.all("table") if t.attributes["id"] == "missing-table").whole_text
    for told in (
        "sasrec-pause-s0",
        "sasrec-lares-s0",
        "sasrec-diffuse-s0",
        "No space is left.",
        "Data audit of beauty",
    ):
        assert told in missing
    assert "Learning curves" in headings(text)


def test_forty_systems_are_all_in_the_table_and_few_in_colour(tmp_path: Path) -> None:
    for i in range(40):
        folder = make_run(tmp_path, "sasrec", skill(0.1 + 0.003 * i, i, N), folder=f"r{i}", config=f"[a]\nb = {i}\n")
        log(folder, 0.05, 4)
        steps(folder, 0.04)
    root = Tree(page(tmp_path)).root
    table = next(t for t in root.all("table") if t.attributes["id"] == "table-beauty")
    assert len(table.all("tbody")[0].all("tr")) == 40
    curve = next(f for f in root.all("figure") if f.attributes["id"] == "learning-beauty")
    assert "32 others, see the table" in curve.whole_text


def test_searches_of_several_widths_stand_in_a_table_the_narrowest_first(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "sid-lm", skill(0.2, 1, N))
    log(folder, 0.05, 4)
    beams(folder)
    text = page(tmp_path)
    assert "Width of the search" in headings(text)
    table = next(t for t in Tree(text).root.all("table") if t.attributes["id"] == "beams-beauty")
    rows = [[cell.whole_text.strip() for cell in row.all("td", "th")] for row in table.all("tbody")[0].all("tr")]
    assert [row[2:] for row in rows] == [
        ["10", "0.0400", "0.0391", "0.0540", "0.70"],
        ["900", "0.0412", "0.0402", "0.0000", "9.50"],
    ]


def test_a_long_log_is_thinned_and_says_so(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "sasrec", skill(0.2, 1, N))
    lines = [
        json.dumps(
            {"stage": "train", "epoch": e, "losses": {"total": 1.0}, "valid": {"ndcg@10": 0.01}, "best": e == 701}
        )
        for e in range(1, 1001)
    ]
    (folder / LOG).write_text("\n".join(lines))
    text = page(tmp_path)
    table = next(t for t in Tree(text).root.all("table") if t.attributes["id"] == "learning-numbers-beauty")
    epochs = [row.children[3].whole_text for row in table.all("tbody")[0].all("tr")]
    assert len(epochs) < 400
    assert {"1", "701", "1000"} <= set(epochs)
    assert "1000 epochs in all" in text


def test_the_same_runs_give_the_same_bytes(tmp_path: Path) -> None:
    study(tmp_path, n=N, seeds=1)
    assert page(tmp_path) == page(tmp_path)


def test_a_changed_file_of_ranks_is_refused(tmp_path: Path) -> None:
    from recbench.errors import RecbenchError

    study(tmp_path, n=N, seeds=1)
    skill(0.9, 3, N).to_parquet(tmp_path / "beauty-sasrec-lares-s0" / USERS, index=False)
    with pytest.raises(RecbenchError, match=r"users\.parquet is changed"):
        page(tmp_path)


def test_the_histograms_of_the_audit_are_drawn_with_their_numbers(tiny_home: Path, tmp_path: Path) -> None:
    dataset = open_dataset("tiny", tiny_home)
    table = Asked("markov", "none", "tiny").table()
    experiment.run(Order(dataset, resolve(table, dataset.card.family), 0, tmp_path, CPU), Watcher())
    text = page(tmp_path, tiny_home)
    figure = next(node for node in Tree(text).root.all("figure") if node.attributes.get("id") == "holds-tiny")
    for title in ("Length: users by events a user", "Popularity: items by events an item", "Time: events by date"):
        assert title in text
    told = dataset.card.audit["histograms"]
    rows = sum(len(bins) for bins in told.values())
    assert len(figure.all("tr")) == rows + 1


def test_what_the_order_of_ties_is_worth_is_drawn_with_its_numbers(tmp_path: Path) -> None:
    rows = "".join(f"u{u},i{(u + t) % 40:02d},{86_400 * (u % 7)}\n" for u in range(60) for t in range(6))
    (tmp_path / "tied.csv").write_text("user,item,timestamp\n" + rows)
    command = ["prepare", "tied", "--source", str(tmp_path / "tied.csv"), "--core", "0", "--datasets", str(tmp_path)]
    assert run([*command, "--shuffles", "2", "--quiet"]) == 0
    dataset = open_dataset("tied", tmp_path)
    table = Asked("markov", "none", "tied").table()
    experiment.run(Order(dataset, resolve(table, dataset.card.family), 0, tmp_path / "runs", CPU), Watcher())
    text = page(tmp_path / "runs", tmp_path)
    figure = next(node for node in Tree(text).root.all("figure") if node.attributes.get("id") == "ties-tied")
    markov = dataset.card.audit["tie_sensitivity"]["markov"]
    assert len(figure.all("tr")) == 5
    assert f"{markov['as_prepared']['hr@10']:.4f}" in figure.whole_text
    assert f"{sum(markov['shuffled']['ndcg@10']) / 2:.4f}" in figure.whole_text
    assert "mean and range over 2 seeds of --ties hash" in figure.whole_text
    assert "markov HR@10" in figure.whole_text


def test_a_plus_minus_is_one_sign_wherever_it_stands() -> None:
    from recbench.report.html import _signs

    assert _signs("0.0416 +-0.0004, same: within +-1.0 % (+-0.0001)") == "0.0416 ±0.0004, same: within ±1.0 % (±0.0001)"


def test_the_page_says_what_line_band_and_marker_of_a_difference_are(full: str) -> None:
    text = " ".join(Tree(full).root.whole_text.replace("\N{NO-BREAK SPACE}", " ").split())
    assert "smallest effect of interest 1 %" in text
    assert "Line: the 95 % interval, not corrected, so that it may leave out 0 where nothing is decided." in text
    assert "equivalent is what has its 90 % interval inside" in text
    assert "p: Holm over the 14 comparisons of this table." in text, "the slices: two parts, seven systems"
    assert ".. too few" not in text, "that mark is a terminal's"


def test_tables_of_other_tools_have_no_costs_no_commit_and_no_settings(tmp_path: Path) -> None:
    lines = [f"{name},beauty,0,{user},5,{1 + user % k}" for name, k in (("a", 9), ("b", 7)) for user in range(50)]
    table = tmp_path / "given.csv"
    table.write_text("\n".join(["system,dataset,seed,user,target,rank", *lines]), encoding="utf-8")
    text = page(table)
    assert headings(text) == ["Verdict", "Results", "Runs", "What is missing"]
    assert "installed copy" not in text
    runs = next(t for t in Tree(text).root.all("table") if t.attributes["id"] == "runs-table")
    config = [head.whole_text for head in runs.all("thead")[0].all("th")].index("config")
    assert [row.children[config].whole_text for row in runs.all("tbody")[0].all("tr")] == ["", ""]


def test_an_unfinished_run_is_named_with_the_command_that_ends_it(tmp_path: Path) -> None:
    make_run(tmp_path, "markov", skill(0.1, 1, N))
    argv = ["recbench", "train", "--backbone", "sasrec"]
    make_run(tmp_path, "sasrec", skill(0.2, 1, N), status="interrupted", argv=argv)
    assert "recbench train --backbone sasrec --dataset beauty --resume" in page(tmp_path)
