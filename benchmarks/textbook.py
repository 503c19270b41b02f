"""The loop most toolkits run: a row a prefix, padded to 50, every logit materialised. Same sizes and loss as the shipped SASRec.

Code published with ReaRec and LARES runs such loops, so their losses are here, too, and of what each costs only a part: ReaRec's
thoughts are made without any pass of the encoder, LARES refines without its partner passes. What is measured is thus a lower bound.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import permutations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recbench.data.batching import Batch

LENGTH = 50


class TextbookSASRec(nn.Module):
    """Post-norm encoder layers over padded rows; the state of the last event scores all items.

    Args:
        passes: of an encoder layer; LARES makes 1 + 4 (one before the loop, four steps of one layer).
        thoughts: K states beside the plain one, each of which scores all items.
    """

    def __init__(self, n_items: int, width: int = 64, length: int = LENGTH, passes: int = 2, thoughts: int = 0) -> None:
        super().__init__()
        self.items = nn.Embedding(n_items + 1, width, padding_idx=0)
        self.positions = nn.Embedding(length, width)
        self.norm, self.dropout = nn.LayerNorm(width), nn.Dropout(0.5)
        layer = nn.TransformerEncoderLayer(width, 2, 256, 0.5, "gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, passes, enable_nested_tensor=False)
        self.thoughts = nn.Parameter(torch.randn(thoughts, width))

    def loss(self, items_BT: Tensor, length_B: Tensor, target_B: Tensor) -> Tensor:
        """Cross-entropy over the whole catalogue at the last event of each right-padded row."""
        return F.cross_entropy(self._state(items_BT, length_B) @ self.items.weight[1:].T, target_B - 1)

    def ensemble_loss(self, items_BT: Tensor, length_B: Tensor, target_B: Tensor) -> Tensor:
        """ReaRec's ensemble: cross-entropy of the mean of all states' logits, less their divergence over ordered pairs."""
        logits = [u_BD @ self.items.weight[1:].T for u_BD in self._states(items_BT, length_B)]
        log_p = [one.log_softmax(1) for one in logits]
        apart = [F.kl_div(q.detach(), p, reduction="batchmean", log_target=True) for p, q in permutations(log_p, 2)]
        return F.cross_entropy(torch.stack(logits).mean(0), target_B - 1) - 0.01 * torch.stack(apart).mean()

    def progressive_loss(self, items_BT: Tensor, length_B: Tensor, target_B: Tensor) -> Tensor:
        """ReaRec's progressive form: the sum of every state's cross-entropy, and the contrast of a second pass's states."""
        states, others = self._states(items_BT, length_B), self._states(items_BT, length_B)
        logits = [u_BD @ self.items.weight[1:].T for u_BD in states]
        own_B = torch.arange(len(target_B))
        apart = [F.cross_entropy(other @ u_BD.T, own_B) for u_BD, other in zip(states[1:], others[1:], strict=True)]
        return torch.stack([*(F.cross_entropy(one, target_B - 1) for one in logits), torch.stack(apart).mean()]).sum()

    def _states(self, items_BT: Tensor, length_B: Tensor) -> list[Tensor]:
        u_BD = self._state(items_BT, length_B)
        return [u_BD, *(u_BD + thought_D for thought_D in self.thoughts)]

    def _state(self, items_BT: Tensor, length_B: Tensor) -> Tensor:
        T = items_BT.shape[1]
        x_BTD = self.dropout(self.norm(self.items(items_BT) + self.positions.weight[:T]))
        h_BTD = self.encoder(x_BTD, mask=nn.Transformer.generate_square_subsequent_mask(T), is_causal=True)
        return h_BTD[torch.arange(len(items_BT)), length_B - 1]


class TextbookLoop:
    """A model stepped over rows a prefix.

    Args:
        loss: name of the model's loss.
    """

    def __init__(self, model: TextbookSASRec, loss: str, batches: Iterable[Batch]) -> None:
        self.loss = getattr(model.train(), loss)
        self.optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        self.batches = batches

    def run(self) -> None:
        """A step a batch."""
        for batch in self.batches:
            items_BT = torch.zeros(len(batch.rows), LENGTH, dtype=torch.long)
            items_BT[batch.rows.row_N, batch.rows.position_N] = batch.items_N
            loss = self.loss(items_BT, torch.from_numpy(batch.rows.lengths), batch.targets_Q)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
