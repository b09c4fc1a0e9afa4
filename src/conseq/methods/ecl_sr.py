"""Equivariant Contrastive Learning for Sequential Recommendation (ECL-SR).

Peilin Zhou, Jingqi Gao, Yueqi Xie, Qichen Ye, Yining Hua, Jae Boum Kim, Shoujin Wang, Sunghun Kim; RecSys 2023.

A user's vector shall not change under mild augmentation (another dropout mask: a contrast), and shall tell an
invasive one (items that a generator replaced: a discriminator that is conditioned on the encoder's states, and
is the encoder itself, finds them).
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from conseq.config import settings
from conseq.data.negatives import UniformNegatives
from conseq.data.sequences import Sequences, concatenate
from conseq.data.train_set import Batch, TrainSet
from conseq.encoders.bert4rec import BERT4Rec, BERT4RecConfig
from conseq.encoders.encoder import Backbone, Encoder, TokenEncoder
from conseq.encoders.gru4rec import GRU4Rec
from conseq.methods.method import Terms
from conseq.methods.prediction import Loss, Prediction
from conseq.methods.staged import Staged, epochs_after
from conseq.nn import pooling
from conseq.objectives.contrast import one_way_info_nce
from conseq.objectives.detection import fill_in, masked_item, replaced_item_detection
from conseq.views import invasive, mild
from conseq.views.invasive import Choice, Draw, Edit, Edited

Weight = Annotated[float, Field(ge=0)]
Probability = Annotated[float, Field(ge=0, lt=1)]
Mild = Literal["dropout", "normalisation", "perturbation"]
Invasive = Literal["masked_substitution", "random_substitution", "insertion", "deletion", "cropping", "reordering"]


@settings
class ECLSRConfig:
    """Settings of ECL-SR. RIDL-SR is ``invariance`` 0, ICL-SR ``detection`` 0."""

    loss: Loss = "cross_entropy"
    """L_Rec: full softmax, or a loss over sampled items."""
    negatives: Annotated[int, Field(ge=1)] = 1
    """Sampled items per target, for the losses that sample."""
    calibration: Annotated[float, Field(ge=0, le=1)] = 0.75
    """t of gBCE."""
    log_q: bool = True
    """Correct the sampled softmax for how its items were drawn."""
    invariance: Weight = 0.3
    """lambda_1, weight of the contrast of mildly augmented histories L_ICL."""
    generation: Weight = 0.2
    """lambda_2, weight of the generator's loss L_Gen; of no effect where nothing reads what it generates."""
    detection: Weight = 0.1
    """lambda_3, weight of the detection of what was changed L_RID."""
    temperature: Annotated[float, Field(gt=0)] = 0.05
    """tau of the contrast."""
    window: Annotated[int, Field(ge=1)] = 5
    """k, last states whose mean is contrasted; the paper has 20 for ML-1M."""
    mild: Mild = "dropout"
    """The mild augmentation: a second dropout mask, or a change of the user's vector."""
    noise: Weight = 0.1
    """epsilon, length of the perturbation, not in the paper; SimGCL's 0.1 hardly turns vectors that are 2 to 9 long."""
    negative_view: Literal["first", "second"] = "first"
    """Whose other histories are negatives: the anchors' view (eq. 13), or the positives' (the code)."""
    same_user: bool = False
    """Whether other histories of the same user are negatives; eq. 13 sums over users, the code over examples."""
    contrast_edited: Literal["no", "positive", "negative"] = "no"
    """Edited histories as positives (ICL-SR+pos.) or negatives (ICL-SR+neg.) of the contrast, too."""
    invasive: Invasive = "masked_substitution"
    """The invasive augmentation."""
    ratio: Annotated[float, Field(ge=0, le=1)] = 0.2
    """gamma, share of a history that is edited; the paper has 0.6 for Yelp."""
    draw: Draw = "count"
    """Edit the share of the items, at least one; that share and one more (the code's `sample`); or each with its own
    chance (the code's `prob`)."""
    first: bool = False
    """Whether the first item of a history may be edited, and is then judged; eq. 15 leaves it out."""
    judge_first: bool = False
    """Whether the first item is judged where items are substituted, though it may not be (the code's `sample`)."""
    fill: Literal["argmax", "sample"] = "argmax"
    """What the generator puts in: its most likely item (the code), or one drawn from its softmax (ELECTRA)."""
    condition: Literal["concatenation", "sum"] = "concatenation"
    """How the discriminator is given the encoder's states: beside the item vectors, projected, or added (the code)."""
    causal: bool = True
    """Whether the discriminator reads forwards only, as the encoder does."""
    per_history: bool = True
    """L_Gen: mean over a history's masked items, then over histories (eq. 14); False: over all at once (the code)."""
    freeze_after: Annotated[int, Field(ge=0)] = 10
    """Epochs after which the generator is frozen; 0: never (the code)."""
    pretrain: Annotated[int, Field(ge=0)] = 0
    """First epochs, which train the generator alone (ICL-SR+pos., ICL-SR+neg.); not_before must be later than they."""
    diluted: bool = False
    """whole: average L_Rec over max_length slots a history, as code does that counts padding (Sports, Yelp, ML-1M)."""
    generator_layers: Annotated[int, Field(ge=1)] = 1
    """Blocks of the generator; the paper shares its 2 between encoder and generator, the code has 2 in each."""
    generator_heads: Annotated[int, Field(ge=1)] = 2
    """Attention heads of the generator."""
    generator_positions: Literal["start", "end"] = "start"
    """Where the generator counts positions from."""
    generator_dropout: Probability = 0.5
    """Dropout of the generator's embedding and sublayers."""
    generator_attention_dropout: Probability = 0.5
    """Dropout of the generator's attention probabilities."""


class ECLSR(Staged[TokenEncoder]):
    """Next item, contrast of mild views, and a generator whose edits the encoder itself detects.

    Args:
        config: The settings.
        train: What is trained on.
        backbone: The encoder's settings; it is the discriminator, too.

    Raises:
        ValueError: if the encoder has no token states, or cannot read in the discriminator's direction; if the
            generator is to be pretrained longer than trained.
    """

    def __init__(self, config: ECLSRConfig, train: TrainSet, backbone: Backbone[TokenEncoder]) -> None:
        super().__init__(train, backbone, config.pretrain)
        _check_direction(config, self.encoder)
        self.config = config
        self.prediction = Prediction(
            config.loss,
            train,
            negatives=config.negatives,
            calibration=config.calibration,
            log_q=config.log_q,
        )
        self.choice = Choice(config.ratio, config.draw, first=config.first, judge_first=config.judge_first)
        self.edits = config.detection > 0 or (config.invariance > 0 and config.contrast_edited != "no")
        self.generator = _generator(config, self.encoder, backbone) if self.edits else None
        self.edit = _editor(config.invasive, self.choice, train) if self.edits else None
        width = backbone.width
        self.head = _linear(width, 1) if config.detection else None  # w of eq. 15
        joins = config.detection > 0 and config.condition == "concatenation"
        self.join = _linear(2 * width, width) if joins else None
        _check_pretraining(config, self.generator)

    @staticmethod
    def training_defaults(config: ECLSRConfig) -> dict[str, Any]:
        """As many epochs as other methods have are left after those of the generator alone."""
        return epochs_after(config.pretrain)

    @property
    def frozen(self) -> bool:
        """Whether the generator is trained no more."""
        return 0 < self.config.freeze_after < int(self.epoch)

    def loss(self, batch: Batch, rng: torch.Generator) -> Terms:
        """Gives the terms ``next_item``, ``invariance``, ``generation`` and ``detection`` (eq. 16).

        A term whose weight is 0 is left out, and so is ``generation`` once the generator is frozen.
        """
        config, seqs = self.config, batch.history
        edited, generation = self.edited(batch, rng)
        generating = {} if generation is None else {"generation": config.generation * generation}
        if self.in_first_stage:
            return generating
        views = [seqs]
        if config.invariance and config.mild == "dropout":
            views.append(seqs)  # the same input, another dropout mask
        if config.invariance and config.contrast_edited != "no" and edited is not None:
            views.append(edited.history)
        states, *others = self.encode(views)
        terms = {"next_item": self.next_item(states, batch, rng)}
        if config.invariance:
            users = pooling.window(states, seqs, config.window)
            more = [pooling.window(h, view, config.window) for h, view in zip(others, views[1:], strict=True)]
            terms["invariance"] = config.invariance * self.invariance(users, more, batch, rng)
        terms |= generating
        if self.head is not None and edited is not None:
            terms["detection"] = config.detection * self.detection(self.head, edited, states)
        return terms

    def encode(self, views: list[Sequences]) -> list[Tensor]:
        """Gives the token states of each view, all from one pass; dropout differs among them."""
        return list(torch.split(self.encoder.states(concatenate(views)), [view.ids.numel() for view in views]))

    def next_item(self, states: Tensor, batch: Batch, rng: torch.Generator) -> Tensor:
        """Gives L_Rec (eq. 1), from the states ``[N, D]`` of the histories."""
        term = self.prediction(self.encoder, states.index_select(0, batch.at), batch, rng)
        if self.config.diluted and not batch.at_last:
            term = term * (len(batch.at) / (len(batch) * self.train_set.max_length))
        return term

    def invariance(self, users: Tensor, others: list[Tensor], batch: Batch, rng: torch.Generator) -> Tensor:
        """Gives L_ICL (eq. 13).

        Args:
            users: float ``[B, D]``, pooled states (eq. 12).
            others: float ``[B, D]`` each: those of the second dropout mask where that is the mild augmentation,
                then those of the edited histories where the contrast reads them.
            batch: Tells whose the histories are.
            rng: Of the perturbation.

        Returns:
            Scalar.
        """
        config = self.config
        positives = others[0] if config.mild == "dropout" else self.mildly(users, rng)
        a, b = F.normalize(users, dim=1), F.normalize(positives, dim=1)  # cosine
        same = None if config.same_user else batch.users[:, None] == batch.users
        second = config.negative_view == "second"
        if config.contrast_edited == "negative":
            edited = F.normalize(others[-1], dim=1)
            negatives = torch.cat([b if second else a, edited])
            own = torch.eye(len(a), dtype=torch.bool, device=a.device)
            hidden = torch.cat([own if same is None else same | own, torch.zeros_like(own)], 1)
            return contrast_with(a, b, negatives, temperature=config.temperature, hidden=hidden)
        positive_views = [b] if config.contrast_edited == "no" else [b, F.normalize(others[-1], dim=1)]
        terms = [
            one_way_info_nce(a, view, temperature=config.temperature, inter=second, intra=not second, same=same)
            for view in positive_views
        ]
        return torch.stack(terms).mean()

    def mildly(self, users: Tensor, rng: torch.Generator) -> Tensor:
        """Gives user vectors ``[B, D]`` after normalisation (eq. 9) or perturbation (eqs. 7-8)."""
        if self.config.mild == "normalisation":
            return mild.normalised(users)
        return mild.perturbed(users, self.config.noise, rng)

    def edited(self, batch: Batch, rng: torch.Generator) -> tuple[Edited | None, Tensor | None]:
        """Gives the edited histories S'' and L_Gen, each None where there is none."""
        if self.generator is not None:
            return self.generated(self.generator, batch, rng)
        if self.edit is not None:
            return self.edit(batch, rng).tail(self.encoder.max_length), None
        return None, None

    def generated(self, generator: BERT4Rec, batch: Batch, rng: torch.Generator) -> tuple[Edited, Tensor | None]:
        """Gives histories whose masked items the generator filled in, and L_Gen (eq. 14) while it is trained."""
        config, seqs, table = self.config, batch.history, self.encoder.items
        chosen = self.choice(seqs, rng)
        places = chosen.nonzero().squeeze(1)
        masked = seqs.replace(seqs.ids.masked_fill(chosen, table.mask_id))  # S'
        uniform = None
        if config.fill == "sample":
            uniform = torch.rand(len(places), generator=rng).to(seqs.device)
        trained = config.generation > 0 and not self.frozen
        with torch.set_grad_enabled(trained and torch.is_grad_enabled()):
            states = generator.states(masked, places)
        if trained:
            weights = _per_history(seqs.rows[places]) if config.per_history else None
            loss, items = masked_item(states, seqs.ids[places], table, weights=weights, uniform=uniform)
        else:
            loss, items = None, fill_in(states, table, uniform=uniform)
        return invasive.substituted(seqs, chosen, items, judged=self.choice.judged(seqs)), loss

    def detection(self, head: nn.Module, edited: Edited, states: Tensor) -> Tensor:
        """Gives L_RID (eq. 15): the encoder reads the edited histories under the condition of its own states.

        Args:
            head: w.
            edited: S''.
            states: float ``[N, D]``, h: those of the original histories. The gradient flows into them.

        Returns:
            Scalar.
        """
        items = self.encoder.items(edited.history.ids)
        condition = states.index_select(0, edited.source)
        joint = items + condition if self.join is None else self.join(torch.cat([items, condition], 1))
        read = self.encoder.contextualize(joint, edited.history, causal=self.config.causal)
        verdicts = head(read)[:, 0]
        return replaced_item_detection(verdicts[edited.judged], edited.changed[edited.judged])


def contrast_with(
    anchors: Tensor, positives: Tensor, negatives: Tensor, *, temperature: float, hidden: Tensor
) -> Tensor:
    r"""Gives InfoNCE with negatives of any kind: eq. 13 with more in its denominator.

    .. math:: -\frac{1}{B} \sum_{i=1}^{B} \log \frac{e^{x_i \cdot y_i / \tau}}
        {e^{x_i \cdot y_i / \tau} + \sum_{k \text{ not hidden}} e^{x_i \cdot n_k / \tau}}

    Args:
        anchors: float ``[B, D]``, x.
        positives: float ``[B, D]``, y.
        negatives: float ``[K, D]``, n.
        temperature: τ > 0.
        hidden: bool ``[B, K]``, True where k must not be a negative of i.

    Returns:
        Scalar, mean over the anchors.
    """
    with torch.autocast(anchors.device.type, enabled=False):
        positive = (anchors * positives).sum(1, keepdim=True) / temperature
        negative = (anchors @ negatives.T / temperature).masked_fill(hidden, -math.inf)
        return (torch.logsumexp(torch.cat([positive, negative], 1), 1) - positive[:, 0]).mean()


def _per_history(rows: Tensor) -> Tensor:
    """Gives the weights of eq. 14: one over a history's masked items, mean over the histories that have any."""
    _, own, counts = torch.unique_consecutive(rows, return_inverse=True, return_counts=True)
    return torch.reciprocal((counts[own] * max(1, len(counts))).double())


def _generator(config: ECLSRConfig, encoder: TokenEncoder, backbone: Backbone[TokenEncoder]) -> BERT4Rec | None:
    """Gives a BERT4Rec on the encoder's item table, with positions of its own, where items are substituted by it."""
    if config.invasive != "masked_substitution":
        return None
    own = BERT4RecConfig(
        width=backbone.width,
        layers=config.generator_layers,
        heads=config.generator_heads,
        max_length=backbone.max_length,
        positions=config.generator_positions,
        dropout=config.generator_dropout,
        attention_dropout=config.generator_attention_dropout,
    )
    return own(encoder.items)


def _editor(kind: Invasive, choice: Choice, train: TrainSet) -> Edit | None:
    """Gives the invasive augmentation that needs no generator; None where it needs one."""
    if kind == "random_substitution":
        negatives = UniformNegatives(train.sequences, train.sequence_users, train.n_items)
        return invasive.RandomSubstitution(choice, negatives)
    if kind == "insertion":
        return invasive.Insertion(choice, train)
    if kind == "deletion":
        return invasive.Deletion(choice)
    if kind == "cropping":
        return invasive.Cropping(choice.ratio, draw=choice.draw)
    if kind == "reordering":
        return invasive.Reordering(choice.ratio, first=choice.first, draw=choice.draw)
    return None


def _linear(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs, bias=False)
    nn.init.normal_(layer.weight, std=0.02)
    return layer


def _check_direction(config: ECLSRConfig, encoder: Encoder) -> None:
    if config.detection and not config.causal and isinstance(encoder, GRU4Rec):
        raise ValueError(
            "causal is False, but the encoder is the discriminator, too, and GRU4Rec reads a history forwards only; "
            "use encoder 'sasrec', or causal True"
        )


def _check_pretraining(config: ECLSRConfig, generator: BERT4Rec | None) -> None:
    if not config.pretrain:
        return
    if generator is None or not config.generation:
        raise ValueError(
            f"pretrain is {config.pretrain}, but there is no generator to train: it needs invasive "
            "'masked_substitution', generation above 0, and detection or contrast_edited to read what it generates"
        )
    if 0 < config.freeze_after < config.pretrain:
        raise ValueError(f"the generator cannot be pretrained for {config.pretrain} epochs and frozen after fewer")
