"""LaTeX: what is marked, what the caption says, and that it compiles."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from recbench.cli.app import run
from recbench.comparison import Settings, compare
from recbench.report import latex
from recbench.runs.folder import find
from recbench.runs.sources import read
from tests.report.given import HOSTILE, study
from tests.run_folders import make_run, ranks

PDFLATEX = shutil.which("pdflatex")
DOCUMENT = r"""\documentclass{article}
\usepackage{booktabs}
\begin{document}
\input{tables}
\end{document}
"""


def compiled(text: str, home: Path) -> str:
    """The log of pdflatex, which must succeed."""
    (home / "tables.tex").write_text(text, encoding="utf-8")
    (home / "main.tex").write_text(DOCUMENT, encoding="utf-8")
    done = subprocess.run(
        [str(PDFLATEX), "-interaction=nonstopmode", "-halt-on-error", "main.tex"],
        cwd=home,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    return done.stdout


def share(hits: float, n: int = 1000) -> object:
    return ranks(np.where(np.arange(n) < n * hits, 0, 99))


def test_best_second_and_decided_are_marked(tmp_path: Path) -> None:
    for name, hits in (("popularity", 0.1), ("markov", 0.3), ("sasrec", 0.2)):
        make_run(tmp_path, name, share(hits))
    rows = [line for line in latex.render(compare(find([tmp_path]))).splitlines() if line.endswith(r"\\")]
    popularity, markov, sasrec = rows[1:4]
    assert markov.startswith(r"markov & -- & \textbf{0.3000}$^{\ast}$ & \textbf{0.3000}$^{\ast}$ & $+$0.1000 [")
    assert popularity.startswith(r"popularity & -- & 0.1000$^{\dagger}$ &")
    assert sasrec == r"sasrec & 1 & \underline{0.2000} & \underline{0.2000} &  &  \\"
    assert markov.endswith(r"& $<$0.001 \\")


def test_the_caption_says_n_seeds_test_correction_and_marks(tmp_path: Path) -> None:
    for seed in (0, 1):
        make_run(tmp_path, "sasrec", share(0.2), seed=seed)
    make_run(tmp_path, "markov", share(0.3))
    text = latex.render(compare(find([tmp_path]), Settings(correction="bh")))
    caption = next(line for line in text.splitlines() if line.startswith(r"\caption"))
    for told in (
        r"1\,000 users",
        "2 seeds",
        "paired t over users",
        "Benjamini-Hochberg",
        "Bold: best",
        r"decided at 5\,\%",
    ):
        assert told in caption
    assert r"$\pm$sd over seeds" in caption
    assert r"\label{tab:beauty}" in text


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("a_b & 5%", r"a\_b \& 5\%"),
        ("\\input{x}", r"\textbackslash{}input\{x\}"),
        ("$x^2~#1|<>", r"\$x\textasciicircum{}2\textasciitilde{}\#1\textbar{}\textless{}\textgreater{}"),
        ("né\n中", "né [U+4E2D]"),
        ("a\x07b", "ab"),
    ],
)
def test_other_peoples_text_is_escaped(text: str, printed: str) -> None:
    assert latex.escape(text) == printed


def test_a_name_in_brackets_is_no_argument_of_the_line_before(tmp_path: Path) -> None:
    names = ["*starred", "[a]", "\N{CJK UNIFIED IDEOGRAPH-4E2D}", "plain"]
    lines = [f"{name},beauty,0,{user},7,{1 + user % 9}" for name in names for user in range(9)]
    (tmp_path / "given.csv").write_text("\n".join(["system,dataset,seed,user,target,rank", *lines]), encoding="utf-8")
    rows = [line for line in latex.render(compare(read([tmp_path / "given.csv"]))).splitlines() if line.endswith(r"\\")]
    starts = [row.split(" & ")[0] for row in rows]
    assert starts == ["system", "{}*starred", "{}[a]", "plain", "{}[U+4E2D]"]


@pytest.mark.skipif(PDFLATEX is None, reason="no pdflatex")
def test_hostile_names_compile(tmp_path: Path) -> None:
    names = [HOSTILE, "[a]", "*", "\\end{table}%", "ÄÐþ÷ß€", "x" * 60, '100% `best\' "quoted"']
    lines = ["system,dataset,seed,user,target,rank"]
    lines += [
        f'"{n.replace(chr(34), chr(34) * 2)}",a_b%{{}},0,{u},5,{1 + u % (9 + i)}'
        for i, n in enumerate(names)
        for u in range(60)
    ]
    (tmp_path / "given.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    compiled(latex.render(compare(read([tmp_path / "given.csv"]))), tmp_path)


@pytest.mark.skipif(PDFLATEX is None, reason="no pdflatex")
def test_several_datasets_and_their_ranks_compile_within_the_margins(tmp_path: Path) -> None:
    study(tmp_path / "runs", ("beauty", "office", "toys", "games", "sports"), n=300)
    text = latex.render(compare(find([tmp_path / "runs"])))
    assert text.count(r"\begin{table}") == 7
    assert r"\label{tab:ranks-ndcg-10}" in text
    assert "! " not in compiled(text, tmp_path)


def test_the_suffix_tex_means_latex(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, hits in (("markov", 0.3), ("sasrec", 0.2)):
        make_run(tmp_path / "runs", name, share(hits))
    monkeypatch.chdir(tmp_path)
    assert run(["compare", "--output", "table.tex", "--quiet"]) == 0
    assert r"\begin{tabular}" in (tmp_path / "table.tex").read_text()
