"""sid-lm: one pass over all items of a row, and spellings beside it."""

from __future__ import annotations

import pytest
import torch

from tests.generators.spelled import STARTS, TABLE, small
from tests.systems import packed


@pytest.mark.parametrize("start", STARTS)
def test_a_spelling_beside_the_row_is_the_spelling_in_it(start: str) -> None:
    """With nothing carried from the answer, codes see what they would see as the next tokens of the row."""
    model = small("sid-lm", sizes={"start": start}).eval()
    torch.nn.init.zeros_(model.backbone.carried.weight)
    row, target = [4, 9, 2], 17
    batch = packed([row], at=[2])
    with model.backbone.about(batch), torch.no_grad():
        beside = model.score.log_prob(model.answers(batch), torch.tensor([[target]]))[0, 0]
    longer = packed([[*row, target]], at=[3])
    inner = model.backbone._codes(longer)
    with torch.no_grad():
        h_ND = model.backbone.over_codes.encode(model.backbone.inputs(longer), inner).h_QD
    first = len(row) * (len(TABLE) + 1)  # the <s> behind the row
    codes = TABLE.codes_VM[target].tolist()
    within = [model.backbone.read(h_ND[first + m, None], m).log_softmax(1)[0, code] for m, code in enumerate(codes)]
    assert torch.allclose(beside, torch.stack(within), atol=1e-5)
