"""How two families of research code name the tensors of the same encoder.

``s3rec``: the code of S3Rec and what grew from it (CoSeRec, ICLRec, ELECRec, ...). Histories are padded on the
left, so the last item always has the last position.

``recbole``: RecBole and its forks (CL4SRec, DuoRec, MCLRec, EC4SRec, ...). Padded on the right: the first item
read has the first position.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

LayoutName = Literal["s3rec", "recbole"]


@dataclass(frozen=True)
class Layout:
    """The names of one family.

    Attributes:
        items: The item table; row 0 pads.
        positions: The position table.
        norm: The normalisation of the embedding.
        layer: What precedes a layer's number.
        sublayers: The family's names inside a layer, by ours inside a block.
        counted_from: Where position 0 is.
        mask_row: Whether the item table always ends with the mask; else it may.
        unused: Tensors of pre-training heads, which no recommendation reads: a pattern, and whose they are.
    """

    items: str
    positions: str
    norm: str
    layer: str
    sublayers: Mapping[str, str]
    counted_from: Literal["start", "end"]
    mask_row: bool
    unused: Mapping[str, str]

    def outer_names(self) -> dict[str, str]:
        """Gives the family's names of the tensors outside the layers, by ours."""
        return {
            "items.weight": self.items,
            "positions.weight": self.positions,
            "norm.weight": f"{self.norm}.weight",
            "norm.bias": f"{self.norm}.bias",
        }

    def layer_names(self, number: int) -> dict[str, str]:
        """Gives the family's names of the tensors of layer ``number``, by ours."""
        return {
            f"blocks.{number}.{ours}.{kind}": f"{self.layer}.{number}.{theirs}.{kind}"
            for ours, theirs in self.sublayers.items()
            for kind in ("weight", "bias")
        }

    def layer_count(self, names: Iterable[str]) -> int:
        """Gives one more than the greatest layer number among ``names``; 0 where there is none."""
        pattern = re.compile(rf"{re.escape(self.layer)}\.(\d+)\.")
        found = (pattern.match(name) for name in names)
        return max((int(match[1]) + 1 for match in found if match), default=0)

    def unused_by(self, name: str) -> str | None:
        """Gives whose pre-training head the tensor ``name`` belongs to; None where that is not known."""
        owners = (owner for pattern, owner in self.unused.items() if re.fullmatch(pattern, name))
        return next(owners, None)


def _sublayers(attention: str, feed_forward: str) -> dict[str, str]:
    return {
        "attention.query": f"{attention}.query",
        "attention.key": f"{attention}.key",
        "attention.value": f"{attention}.value",
        "attention.out": f"{attention}.dense",
        "norm1": f"{attention}.LayerNorm",
        "feed_forward.inner": f"{feed_forward}.dense_1",
        "feed_forward.outer": f"{feed_forward}.dense_2",
        "norm2": f"{feed_forward}.LayerNorm",
    }


LAYOUTS: dict[LayoutName, Layout] = {
    "s3rec": Layout(
        items="item_embeddings.weight",
        positions="position_embeddings.weight",
        norm="LayerNorm",
        layer="item_encoder.layer",
        sublayers=_sublayers("attention", "intermediate"),
        counted_from="end",
        mask_row=True,
        unused={
            r"(aap|mip|map|sp)_norm\.(weight|bias)": "S3Rec's pre-training",
            r"attribute_embeddings\.weight": "S3Rec's pre-training",
            r"dis_projection\.(weight|bias)": "ELECRec's discriminator",
            r"intermediate\.(dense_1|dense_2|LayerNorm)\.(weight|bias)": "ELECRec without layers",
        },
    ),
    "recbole": Layout(
        items="item_embedding.weight",
        positions="position_embedding.weight",
        norm="LayerNorm",
        layer="trm_encoder.layer",
        sublayers=_sublayers("multi_head_attention", "feed_forward"),
        counted_from="start",
        mask_row=False,
        unused={},
    ),
}
