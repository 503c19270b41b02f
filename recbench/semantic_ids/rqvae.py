"""RQ-VAE: an autoencoder whose code is a sum of one vector from each level's codebook."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recbench.errors import Exit, RecbenchError
from recbench.limits import above, at_least
from recbench.semantic_ids.base import Quantised, Tokeniser
from recbench.semantic_ids.kmeans import residual_kmeans
from recbench.semantic_ids.sinkhorn import spread

START_ROWS = 50_000
"""Items at most that k-means starts codebooks from."""


class Quantising(NamedTuple):
    """One pass of B latents of width W through the codebooks."""

    codes_BL: Tensor
    sum_BW: Tensor
    """z_q: the sum of the chosen vectors."""
    last_BW: Tensor
    """What is left before the last level."""
    loss: Tensor
    """Codebook and commitment terms: mean over coordinates and items, summed over levels."""


@final
class RQVAE(Tokeniser):
    """Encoder, residual quantiser, decoder, trained on the vectors of the items alone.

    Source: Zeghidour et al., "SoundStream", 2021; for items Rajput et al., "Recommender Systems with Generative Retrieval"
    (TIGER), NeurIPS 2023, section 3.1.
    """

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """Of the network and its fit."""

        hidden: tuple[int, ...] = (512, 256, 128)
        """Widths of the encoder's layers; the decoder's are the same backwards."""
        width: int = 32
        """Of what is quantised."""
        beta: float = 0.25
        """Weight of the commitment."""
        epochs: int = 500
        """At most."""
        patience: int = 60
        """Epochs without a better reconstruction before the fit ends."""
        batch_size: int = 1024
        """Items a step."""
        learning_rate: float = 1e-3
        """Of AdamW."""
        weight_decay: float = 1e-4
        """Of AdamW."""
        sinkhorn_eps: float = 0.0
        """Above 0: the last level's codes are spread by Sinkhorn in training, as LC-Rec does with .003."""

        def __post_init__(self) -> None:
            at_least(1, self, "width", "epochs", "patience", "batch_size")
            at_least(0, self, "sinkhorn_eps", "beta", "weight_decay")
            above(0, self, "learning_rate")
            if any(width < 1 for width in self.hidden):
                raise ValueError(f"hidden is {self.hidden}; every width is at least 1")

    config: Config

    def fit(self, x_NA: np.ndarray, levels: int, codes: int, seed: int) -> Quantised:
        """As every tokeniser's.

        Raises:
            RecbenchError: it diverged.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self._fit(torch.from_numpy(x_NA.astype(np.float32)), levels, codes, seed)

    def _fit(self, x_NA: Tensor, levels: int, codes: int, seed: int) -> Quantised:
        c = self.config
        x_NA = x_NA / x_NA.std().clamp_min(1e-12)
        net = Net(x_NA.shape[1], c)
        with torch.no_grad():
            start = residual_kmeans(net.encoder(x_NA[:START_ROWS]).numpy(), levels, codes, seed, iterations=10)
        net.books = nn.ParameterList([nn.Parameter(torch.from_numpy(book)) for book in start.codebooks])
        optimiser = torch.optim.AdamW(net.parameters(), lr=c.learning_rate, weight_decay=c.weight_decay)
        best, best_epoch, best_state, epoch, restarted = float("inf"), 0, None, 0, 0
        while epoch < c.epochs and epoch - best_epoch < c.patience:
            epoch += 1
            for rows in torch.randperm(len(x_NA)).split(c.batch_size):
                loss = net.loss(x_NA[rows], c.beta, c.sinkhorn_eps)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
            quantised, error = net.quantise_all(x_NA)
            if error < best:
                best, best_epoch = error, epoch
                best_state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
            restarted += restart_dead(list(net.books), quantised)
        if best_state is None:
            raise RecbenchError(
                "The fit of the RQ-VAE diverged.",
                why=f"None of its {epoch} epochs has a reconstruction error that is finite.",
                fix=f"Lower its step: --set method.learning_rate={min(RQVAE.Config().learning_rate, c.learning_rate / 10):g}",
                code=Exit.RUN,
            )
        net.load_state_dict(best_state)
        quantised, error = net.quantise_all(x_NA)
        facts = {"epochs": epoch, "best_epoch": best_epoch, "reconstruction": error, "codes_restarted": restarted}
        books = tuple(book.detach().numpy().copy() for book in net.books)
        return Quantised(quantised.codes_BL.numpy(), books, quantised.last_BW.numpy(), facts)


@final
class Net(nn.Module):
    """The autoencoder; ``books`` are set once the encoder has shown where latents lie."""

    def __init__(self, width: int, config: RQVAE.Config) -> None:
        super().__init__()
        widths = [width, *config.hidden, config.width]
        self.encoder = _layers(widths)
        self.decoder = _layers(widths[::-1])
        self.books = nn.ParameterList()

    def loss(self, x_BA: Tensor, beta: float, sinkhorn_eps: float = 0.0) -> Tensor:
        """Reconstruction, mean over coordinates, and the quantiser's terms."""
        z_BW = self.encoder(x_BA)
        quantised = quantise(z_BW, list(self.books), beta, sinkhorn_eps)
        return F.mse_loss(self.decoder(straight_through(z_BW, quantised.sum_BW)), x_BA) + quantised.loss

    @torch.no_grad()
    def quantise_all(self, x_NA: Tensor) -> tuple[Quantising, float]:
        """Every item's codes by the nearest vectors, and the mean squared error of the reconstruction."""
        quantised = quantise(self.encoder(x_NA), list(self.books), 0.0)
        return quantised, F.mse_loss(self.decoder(quantised.sum_BW), x_NA).item()


def quantise(z_BW: Tensor, books: Sequence[Tensor], beta: float, sinkhorn_eps: float = 0.0) -> Quantising:
    """Residual quantisation: r_0 = z; c_l nearest to r_l; r_(l+1) = r_l - sg(e_l).

    e is detached in the residual, so commitment of every level reaches the encoder and none reaches a codebook; codebooks learn
    from ||sg(r_l) - e_l||^2 alone. The paper does not print which it means.
    """
    rest_BW, chosen, terms = z_BW, [], []
    sum_BW, before_BW = torch.zeros_like(z_BW), z_BW
    for level, book_CW in enumerate(books):
        before_BW = rest_BW
        distance_BC = torch.cdist(rest_BW.detach(), book_CW.detach()).square()
        if sinkhorn_eps and level == len(books) - 1:
            code_B = torch.from_numpy(spread(distance_BC.numpy(), sinkhorn_eps))
        else:
            code_B = distance_BC.argmin(dim=1)
        e_BW = book_CW[code_B]
        terms.append(F.mse_loss(e_BW, rest_BW.detach()) + beta * F.mse_loss(rest_BW, e_BW.detach()))
        chosen.append(code_B)
        sum_BW = sum_BW + e_BW
        rest_BW = rest_BW - e_BW.detach()
    return Quantising(torch.stack(chosen, dim=1), sum_BW, before_BW.detach(), torch.stack(terms).sum())


def straight_through(z_BW: Tensor, sum_BW: Tensor) -> Tensor:
    """The value of z_q with the gradient of z."""
    return z_BW + (sum_BW - z_BW).detach()


@torch.no_grad()
def restart_dead(books: Sequence[Tensor], quantised: Quantising) -> int:
    """Move each code that no item has to a random item's residual of its level; returns how many moved."""
    moved = 0
    rest_NW = quantised.last_BW
    for level in reversed(range(len(books))):
        book_CW, codes_N = books[level], quantised.codes_BL[:, level]
        if level < len(books) - 1:
            rest_NW = rest_NW + book_CW[codes_N]
        dead = torch.bincount(codes_N, minlength=len(book_CW)) == 0
        n_dead = int(dead.sum())
        if n_dead:
            book_CW[dead] = rest_NW[torch.randint(len(rest_NW), (n_dead,))]
        moved += n_dead
    return moved


def _layers(widths: Sequence[int]) -> nn.Sequential:
    """Linear layers with ReLU between them."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
