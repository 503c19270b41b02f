"""Names to classes. Adding a backbone, head or source is one new file and one line in its table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from recbench.errors import RecbenchError, meant


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a table: where a class lives and what `recbench list` says of it."""

    target: str
    """``module:Class``; imported only when it is used."""
    family: str
    summary: str


@cache
def _third_party(group: str) -> tuple[tuple[str, str], ...]:
    """Names and targets of a group of entry points. Looked up once: it reads the metadata of all that is installed."""
    return tuple((point.name, point.value) for point in entry_points(group=group))


class Registry:
    """A table of names, with a did-you-mean and room for third parties.

    A package adds its own classes by an entry point in the group ``recbench.<plural>``, for example
    ``[project.entry-points."recbench.backbones"]  mymodel = "mypackage.mymodel:MyModel"``.
    """

    def __init__(self, kind: str, plural: str, entries: Mapping[str, Entry]) -> None:
        self.kind = kind
        self.plural = plural
        self._own = dict(entries)

    def entries(self) -> dict[str, Entry]:
        """Every known name, ours first. A third party cannot replace one of ours."""
        found = dict(self._own)
        for name, target in _third_party(f"recbench.{self.plural}"):
            found.setdefault(name, Entry(target, "third party", f"from {target}"))
        return found

    def entry(self, name: str) -> Entry:
        """The line of ``name``.

        Raises:
            RecbenchError: no such name.
        """
        entries = self.entries()
        if name not in entries:
            raise RecbenchError(
                f"Unknown {self.kind} {name!r}.",
                why=f"The {self.plural} are: {', '.join(entries)}.",
                fix=meant(name, entries) or f"recbench list {self.plural}",
            )
        return entries[name]

    def load(self, name: str) -> Any:
        """The class behind ``name``; only here is its module imported.

        Raises:
            RecbenchError: no such name, or a plug-in that cannot be imported.
        """
        entry = self.entry(name)
        module, _, attribute = entry.target.partition(":")
        try:
            return getattr(import_module(module), attribute)
        except Exception as error:
            if module.partition(".")[0] == "recbench":
                raise
            raise RecbenchError(
                f"{self.kind.capitalize()} {name} cannot be imported: {entry.target}.",
                why=f"It comes from another package, and there is a {type(error).__name__}: {error}",
                fix=f"Mend it, or uninstall that package. See it whole: python -c 'import {module}'",
            ) from error


BACKBONES = Registry(
    "backbone",
    "backbones",
    {
        "sasrec": Entry("recbench.backbones.sasrec:SASRec", "neural", "causal self-attention (Kang & McAuley, 2018)"),
        "gru4rec": Entry("recbench.backbones.gru4rec:GRU4Rec", "neural", "gated recurrent units (Hidasi et al., 2016)"),
        "hstu": Entry(
            "recbench.backbones.hstu:HSTU", "neural", "gated pointwise attention, place and time (Zhai et al., 2024)"
        ),
        "lru": Entry("recbench.backbones.lru:LRU", "neural", "linear recurrent units (LRURec, Yue et al., 2024)"),
        "bert4rec": Entry(
            "recbench.backbones.bert4rec:BERT4Rec", "neural", "bidirectional self-attention (Sun et al., 2019)"
        ),
        "fmlp": Entry("recbench.backbones.fmlp:FMLP", "neural", "learnable frequency filters (Zhou et al., 2022)"),
        "bsarec": Entry(
            "recbench.backbones.bsarec:BSARec", "neural", "attention beside a frequency filter (Shin et al., 2024)"
        ),
        "sid-lm": Entry(
            "recbench.generators.sid_lm:SidLM", "generator", "causal language model over semantic ids, from scratch"
        ),
        "tiger": Entry(
            "recbench.generators.tiger:Tiger",
            "generator",
            "encoder-decoder over semantic ids (TIGER, Rajput et al., 2023)",
        ),
        "hf-lm": Entry(
            "recbench.generators.hf_lm:HfLM", "generator", "a pretrained causal language model over semantic ids"
        ),
        "popularity": Entry("recbench.baselines.popularity:Popularity", "baseline", "training count of the item"),
        "markov": Entry("recbench.baselines.markov:Markov", "baseline", "what followed the last item, then popularity"),
        "itemknn": Entry(
            "recbench.baselines.itemknn:ItemKNN", "baseline", "cosine of item columns (Sarwar et al., 2001)"
        ),
        "ease": Entry("recbench.baselines.ease:EASE", "baseline", "closed-form linear autoencoder (Steck, 2019)"),
    },
)

HEADS = Registry(
    "head",
    "heads",
    {
        "none": Entry("recbench.reasoning.none:NoReasoning", "control", "no reasoning: the last state is the answer"),
        "pause": Entry(
            "recbench.reasoning.pause:Pause", "control", "extra steps fed a learned constant: the compute control"
        ),
        "rearec-erl": Entry(
            "recbench.reasoning.rearec_erl:ReaRecERL",
            "latent",
            "states fed back, their mean answers (ReaRec, Tang et al., 2025)",
        ),
        "rearec-prl": Entry(
            "recbench.reasoning.rearec_prl:ReaRecPRL",
            "latent",
            "states fed back, annealed and contrasted (ReaRec, Tang et al., 2025)",
        ),
        "lares": Entry(
            "recbench.reasoning.lares:LARES",
            "latent",
            "layers looped over all states, then rewarded (Liu et al., 2025)",
        ),
        "diffuse": Entry(
            "recbench.reasoning.diffuse:DiffuReason",
            "latent",
            "thoughts refined by diffusion (DiffuReason, 2026, reconstructed from the abstract)",
        ),
        "lasar": Entry(
            "recbench.reasoning.lasar:LASAR",
            "latent",
            "thoughts with anchors, as many as a policy says (LASAR, 2026, reconstructed)",
        ),
    },
)

LOSSES = Registry(
    "loss",
    "losses",
    {
        "softmax": Entry("recbench.scoring.softmax:ItemSoftmax", "all items", "cross-entropy over the whole catalogue"),
        "sampled-softmax": Entry(
            "recbench.scoring.sampled_softmax:SampledSoftmax",
            "shared negatives",
            "softmax against mixed negatives, log-Q corrected (Yang et al., 2020; Yi et al., 2019)",
        ),
        "in-batch": Entry(
            "recbench.scoring.in_batch:InBatchSoftmax",
            "shared negatives",
            "softmax among the targets of a step, log-Q corrected (Yi et al., 2019)",
        ),
        "bce": Entry(
            "recbench.scoring.binary:BCE", "own negatives", "binary cross-entropy against a few uniform negatives"
        ),
        "gbce": Entry(
            "recbench.scoring.binary:GBCE",
            "own negatives",
            "BCE calibrated for its few negatives (gSASRec, Petrov & Macdonald, 2023)",
        ),
        "spelling": Entry(
            "recbench.generators.spelling:Spelling", "codes", "likelihood of an item's codes; of backbones that spell"
        ),
    },
)

SOURCES = Registry(
    "source format",
    "formats",
    {
        "amazon2014-reviews": Entry(
            "recbench.data.sources.amazon2014:Reviews2014",
            "json lines",
            "reviews_<Category>_5.json(.gz), JSON or Python-dict text",
        ),
        "amazon2014-ratings": Entry(
            "recbench.data.sources.amazon2014:Ratings2014", "csv", "ratings_<Category>.csv, no header, user first"
        ),
        "amazon2018-reviews": Entry(
            "recbench.data.sources.amazon2018:Reviews2018", "json lines", "<Category>_5.json(.gz) of 2018"
        ),
        "amazon2018-ratings": Entry(
            "recbench.data.sources.amazon2018:Ratings2018", "csv", "<Category>.csv of 2018, no header, item first"
        ),
        "amazon2023-reviews": Entry(
            "recbench.data.sources.amazon2023:Reviews2023", "json lines", "raw <Category>.jsonl(.gz) of 2023"
        ),
        "amazon2023-ratings": Entry(
            "recbench.data.sources.amazon2023:Ratings2023", "csv", "rating_only/<Category>.csv(.gz) of 2023"
        ),
        "amazon2023-split": Entry(
            "recbench.data.sources.amazon2023:Split2023", "csv", "official train, valid and test of 2023, as one log"
        ),
        "yelp": Entry(
            "recbench.data.sources.yelp:Yelp", "json lines", "review file, tar or zip of the Yelp Open Dataset"
        ),
        "movielens": Entry(
            "recbench.data.sources.movielens:MovieLens",
            "text, csv",
            "u.data, ratings.dat or ratings.csv; zip or folder",
        ),
        "steam": Entry("recbench.data.sources.steam:Steam", "json lines", "steam_reviews.json(.gz), Python-dict text"),
        "recbole": Entry(
            "recbench.data.sources.recbole:RecBole",
            "tsv",
            "X.inter with a typed header, whole or split; X.item beside it",
        ),
        "sequences": Entry(
            "recbench.data.sources.sequences:Sequences",
            "text",
            "S3-Rec text: user, then items oldest first; or `user item` pairs",
        ),
        "letter": Entry(
            "recbench.data.sources.letter:Letter", "json", "LETTER / LC-Rec X.inter.json, with maps and texts beside it"
        ),
        "table": Entry(
            "recbench.data.sources.table:Table", "csv, parquet", "columns user, item, and timestamp / rating if any"
        ),
        "synthetic": Entry(
            "recbench.data.sources.synthetic:Synthetic", "built in", "generated, with a known best ranking"
        ),
    },
)

TOKENISERS = Registry(
    "method of semantic ids",
    "tokenisers",
    {
        "rkmeans": Entry("recbench.semantic_ids.rkmeans:ResidualKMeans", "clusters", "residual k-means, in seconds"),
        "balanced": Entry(
            "recbench.semantic_ids.balanced:BalancedKMeans", "clusters", "residual k-means, clusters of equal size"
        ),
        "rqvae": Entry("recbench.semantic_ids.rqvae:RQVAE", "trained", "residual-quantised autoencoder (TIGER, 2023)"),
    },
)
