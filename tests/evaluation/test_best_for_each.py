"""What every user would get from the best of several rankings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from recbench.evaluation.evaluate import best_for_each, evaluate
from tests.reasoning.looping import random_users
from tests.systems import CPU, queries, small_system


def test_each_user_gets_its_best_ranking_under_each_rule() -> None:
    ranks = evaluate(small_system(), queries(random_users(3, 4)), CPU)
    zeros = np.zeros(3, dtype=np.int64)
    one = replace(ranks, above=np.array([0, 9, 20]), tied=zeros, above_unseen=np.array([0, 9, 20]), tied_unseen=zeros)
    other = replace(one, above=np.array([20, 0, 20]), above_unseen=np.array([0, 20, 20]))
    assert best_for_each([one], ["hr@1", "hr@10"]) == one.means(["hr@1", "hr@10"]) == {"hr@1": 1 / 3, "hr@10": 2 / 3}
    assert best_for_each([one, other], ["hr@1", "mrr@10"]) == pytest.approx({"hr@1": 2 / 3, "mrr@10": 2 / 3})
    assert best_for_each([one, other], ["hr@1", "hr@10"], unseen=True) == pytest.approx({"hr@1": 1 / 3, "hr@10": 2 / 3})


def test_dropout_is_on_where_it_is_asked_for_and_off_again_after_it() -> None:
    model, asked = small_system(dropout=0.5), queries(random_users(60, 6))
    plain = evaluate(model, asked, CPU)
    noisy = evaluate(model, asked, CPU, dropout=True)
    assert (noisy.above != plain.above).any()
    assert (evaluate(model, asked, CPU).above == plain.above).all()
    assert not model.training
