"""The loop most toolkits run: a row a prefix, padded to 50, every logit materialised. Same sizes and loss as the shipped SASRec."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class TextbookSASRec(nn.Module):
    """Two post-norm encoder layers over padded rows; the state of the last event scores all items."""

    def __init__(self, n_items: int, width: int = 64, length: int = 50) -> None:
        super().__init__()
        self.items = nn.Embedding(n_items + 1, width, padding_idx=0)
        self.positions = nn.Embedding(length, width)
        self.norm, self.dropout = nn.LayerNorm(width), nn.Dropout(0.5)
        layer = nn.TransformerEncoderLayer(width, 2, 256, 0.5, "gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def loss(self, items_BT: Tensor, length_B: Tensor, target_B: Tensor) -> Tensor:
        """Cross-entropy over the whole catalogue at the last event of each right-padded row."""
        T = items_BT.shape[1]
        x_BTD = self.dropout(self.norm(self.items(items_BT) + self.positions.weight[:T]))
        h_BTD = self.encoder(x_BTD, mask=nn.Transformer.generate_square_subsequent_mask(T), is_causal=True)
        u_BD = h_BTD[torch.arange(len(items_BT)), length_B - 1]
        return F.cross_entropy(u_BD @ self.items.weight[1:].T, target_B - 1)
