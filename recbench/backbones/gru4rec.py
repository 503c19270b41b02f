"""GRU4Rec: a gated recurrent unit over the history.

Source: Hidasi et al., "Session-based Recommendations with Recurrent Neural Networks", ICLR 2016, arXiv 1511.06939, eq. 1 to 4;
Hidasi & Karatzoglou, "Recurrent Neural Networks with Top-k Gains", CIKM 2018, arXiv 1706.03847 (item vectors shared by input and
scores: its "constrained embedding", section 4).
Not as in the papers: the loss is the full softmax over the catalogue at every position (theirs: ranking losses on sampled
items), the gradient runs through the whole row (theirs: one step, with the state carried on), the reset gate acts behind the
product (as cuDNN has it: n = tanh(W x + b + r * (U h + c))), and item scores have no bias.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast, final

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from recbench.backbones.base import Backbone, Encoded
from recbench.backbones.initial import initialise
from recbench.backbones.recurrence import Chains, TimeMajor
from recbench.data.batching import Batch
from recbench.kernels.dropout import Dropout
from recbench.limits import above, at_least, below_one


@final
class GRU4Rec(Backbone):
    """Gated recurrent layers; a thought is one more step of every layer."""

    causal = True
    post_norm = False

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """Sizes and dropout."""

        width: int = 64
        """D, also of the item vectors."""
        n_layers: int = 2
        """GRU layers."""
        hidden: int | None = None
        """Units of each GRU. Unset: D, and its state is the layer's output. A number: a projection to D behind each GRU."""
        max_length: int = 50
        """Newest events of a history that are seen."""
        dropout: float = 0.5
        """On the item vectors that go in."""
        state_dropout: float = 0.0
        """On the output of each layer."""
        norm: bool = False
        """A LayerNorm in front of each layer but the first. Not in the papers: the control of heads that bring norms."""
        initial_sd: float = 0.02
        """Standard deviation of the initial item vectors. Matrices of a GRU start after Glorot, gate by gate; its biases at 0."""

        def __post_init__(self) -> None:
            at_least(1, self, "width", "n_layers", "hidden", "max_length")
            above(0, self, "initial_sd")
            below_one(self, "dropout", "state_dropout")
            if self.norm and self.n_layers == 1:
                raise ValueError("norm is of the layers behind the first, and n_layers is 1.")

    def __init__(self, config: Config, n_items: int) -> None:
        super().__init__()
        self.config = config
        self.max_length = config.max_length
        self.n_layers = config.n_layers
        self.items = nn.Embedding(n_items + 1, config.width, padding_idx=0)
        initialise(self.items, config.initial_sd)
        self.dropout = Dropout(config.dropout)
        self.layers = nn.ModuleList(Layer(config, normed=config.norm and i > 0) for i in range(config.n_layers))

    def embed(self, batch: Batch) -> Tensor:
        return cast("Tensor", self.dropout(self.items(batch.items_N)))

    def encode(
        self,
        x_ND: Tensor,
        batch: Batch,
        *,
        start: int = 0,
        stop: int | None = None,
        at_Q: Tensor | None = None,
        remember: bool = False,
    ) -> Encoded:
        layers = self.layers[start:stop]
        memory = Chains([]) if remember else None
        if len(layers):
            order = TimeMajor.of(batch.rows)
            for layer in layers:
                x_ND, h_NC = layer(x_ND, order)
                if memory is not None:
                    memory.tokens_LNC.append(h_NC)
        everywhere = at_Q is None or len(at_Q) == batch.rows.n_tokens
        return Encoded(x_ND if everywhere else x_ND[at_Q], memory)

    def extend(self, memory: Any, x_QD: Tensor, at_Q: Tensor, *, live_Q: Tensor | None = None) -> Tensor:
        now = []
        for layer, h_QC in zip(self.layers, memory.states(at_Q), strict=True):
            x_QD, h_QC = cast("Layer", layer).step(x_QD, h_QC)  # noqa: PLW2901 the chain's next state
            now.append(h_QC)
        memory.move(now, live_Q)
        return x_QD

    def item_vectors(self) -> Tensor:
        return self.items.weight


class Layer(nn.Module):
    """A norm if it has one, one GRU (eq. 1 to 4), its projection if it has one, and dropout."""

    def __init__(self, config: GRU4Rec.Config, *, normed: bool) -> None:
        super().__init__()
        C = config.hidden or config.width
        self.norm = nn.LayerNorm(config.width) if normed else None
        self.gru = nn.GRU(config.width, C)
        for name, parameter in self.gru.named_parameters():
            if name.startswith("bias"):
                nn.init.zeros_(parameter)
            else:
                for gate in parameter.detach().chunk(3):
                    nn.init.xavier_uniform_(gate)
        self.projection = None if config.hidden is None else nn.Linear(C, config.width)
        self.dropout = Dropout(config.state_dropout)

    def forward(self, x_ND: Tensor, order: TimeMajor) -> tuple[Tensor, Tensor]:
        """Output (N, D) and hidden state (N, C) of all tokens, each row from a state of zeros."""
        packed = PackedSequence(self._input(x_ND).index_select(0, order.token_N), order.sizes_T)
        h_NC = self.gru(packed)[0].data.index_select(0, order.place_N)
        return self._output(h_NC), h_NC

    def step(self, x_QD: Tensor, h_QC: Tensor) -> tuple[Tensor, Tensor]:
        """Output and hidden state after one more token, for all Q at once."""
        now_QC = self.gru(self._input(x_QD)[None], h_QC[None].contiguous())[0][0]
        return self._output(now_QC), now_QC

    def _input(self, x_ND: Tensor) -> Tensor:
        return x_ND if self.norm is None else cast("Tensor", self.norm(x_ND))

    def _output(self, h_NC: Tensor) -> Tensor:
        return cast("Tensor", self.dropout(h_NC if self.projection is None else self.projection(h_NC)))
