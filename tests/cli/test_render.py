"""Tables in terminals."""

from __future__ import annotations

import pytest
from rich.console import Console

from recbench.cli import render


def test_prose_gives_way_to_names_and_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [["amazon2018-arts-crafts", "thoughts refined by diffusion", "0.1234", "1 097 592"]]
    terminal = Console(highlight=False, soft_wrap=True, force_terminal=True, color_system=None, width=60)
    terminal.print(render.table(None, ["name", "what", "NDCG@10", "events"], rows, left=2))
    lines = [line.split("  ") for line in capsys.readouterr().out.splitlines() if line.strip()]
    first = [cell.strip() for cell in lines[2] if cell.strip()]
    assert first == ["amazon2018-arts-crafts", "thoughts", "0.1234", "1 097 592"]
    assert [" ".join(line).strip() for line in lines[3:]] == ["refined by", "diffusion"]
    terminal.width = 30
    terminal.print(render.table(None, ["name", "what", "NDCG@10", "events"], rows, left=2))
    said = capsys.readouterr().out
    assert all(whole in said for whole in ("amazon2018-arts-crafts", "0.1234", "1 097 592", "NDCG@10"))


def test_a_hash_is_told_by_its_first_digits_a_list_by_its_words_and_a_number_in_groups() -> None:
    told = render.fact("anchor", {"fields": ["title", "brand"], "sha256": "ab" * 32, "none": [], "of": 52015})
    assert told == f"anchor: fields title + brand, sha256 abababababab, none none, of {render.count(52015)}"


def test_columns_of_less_weight_give_way_and_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    headings, row = ["epoch", "one", "two", "NDCG@10", "users/s"], ["1", "0.1" * 5, "0.2" * 5, "0.1234", "100"]
    for width, kept in ((80, 5), (60, 4), (40, 3)):
        terminal = Console(highlight=False, soft_wrap=True, force_terminal=True, color_system=None, width=width)
        monkeypatch.setattr(render, "out", terminal)
        render.show_table(None, headings, [row], yielding=["absent", "users/s", "two", "one"], else_in="the log has")
        said = capsys.readouterr()
        lines = [line for line in said.out.splitlines() if line.strip()]
        assert max(map(len, lines)) <= width
        assert len(lines[0].split()) == kept
        assert said.err == {5: "", 4: "no room for users/s; the log has it\n"}.get(
            kept, "no room for users/s, two; the log has them\n"
        )


def test_a_name_between_colons_is_no_picture(capsys: pytest.CaptureFixture[str]) -> None:
    render.show_table(None, ["item"], [["game:x:100"]])
    render.say("wrote runs/:x:")
    said = capsys.readouterr()
    assert "game:x:100" in said.out
    assert said.err == "wrote runs/:x:\n"


def test_a_sentence_is_broken_on_a_terminal_alone_and_in_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    told = "shares of 1 097 592 events, 43.9 % of them, in 2 min"
    assert render.folded(told, 4) == [told]
    monkeypatch.setattr(render, "out", Console(force_terminal=True, width=34))
    assert render.folded(told, 4) == ["shares of 1 097 592 events,", "43.9 % of them, in 2 min"]
    assert render.folded("a stage that took no more than 12 min", 4) == ["a stage that took no more than", "12 min"]


def test_labels_stay_whole_where_a_terminal_is_narrow(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [["unseen items", "seed 0", *["0.1234"] * 6], ["", "mean", *["0.1234"] * 6]]
    terminal = Console(highlight=False, soft_wrap=True, force_terminal=True, color_system=None, width=40)
    terminal.print(render.table(None, ["candidates", "", *["NDCG@10"] * 6], rows, left=2))
    words = capsys.readouterr().out.split()
    assert {"unseen", "items", "seed", "mean", "candidates"} <= set(words)
