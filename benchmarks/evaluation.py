"""Full evaluation, both candidate rules, against a full sort of every user's scores."""

from __future__ import annotations

import torch

from benchmarks.beauty_like import ITEMS, made, system
from benchmarks.measure import in_turn, show
from recbench.data.batching import query_batches
from recbench.evaluation.evaluate import evaluate

CPU = torch.device("cpu")


def main(quick: bool) -> None:
    """Print the ratios."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = system().eval()
    _, queries = made()

    @torch.inference_mode()
    def full_sort() -> None:
        for _, batch in query_batches(queries, 50, 1024, CPU):
            u_BD = model.head.answer(model.head.think(model.backbone, batch))
            scores_BV = u_BD @ model.score.items().t()
            order_BV = torch.argsort(scores_BV, dim=1, descending=True)
            (order_BV == batch.targets_Q[:, None] - 1).int().argmax(dim=1)

    rounds = 1 if quick else 3
    seconds = in_turn({"recbench": lambda: evaluate(model, queries, CPU), "sort": full_sort}, rounds)
    show(
        f"ranking {len(queries)} users among {ITEMS} items, encoding included, CPU seconds, one thread",
        {
            "recbench, all and unseen items": f"{seconds['recbench']:.2f}",
            "full argsort, all items only": f"{seconds['sort']:.2f}",
            "sort / recbench": f"{seconds['sort'] / seconds['recbench']:.1f}x",
        },
    )
