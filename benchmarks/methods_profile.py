"""Where the time of a method's step goes, by kind of work; used by methods_worker.py.

Every operator that torch's profiler sees is of one kind. What runs inside the softmax over the catalogue, inside the
making of a dropout mask, or inside a product with a sparse matrix is told by the name of what encloses it; the rest
by the operator's own name. Times are an operator's own, without what it calls.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch.autograd.profiler import record_function
from torch.profiler import ProfilerActivity, profile

from conseq.methods import ecl_sr
from conseq.nn import dropout

KINDS = (
    "matrix product",
    "softmax: products",
    "softmax: the rest",
    "elementwise",
    "dropout",
    "indexing",
    "sparse product",
    "optimizer",
    "other operators",
    "between operators",
)
"""The kinds.

* matrix product: dense products of layers, attention and contrasts.
* softmax: the loss over the catalogue (``_FullSoftmax``, ``_MaskedItem``) and the item that a frozen generator puts in
  (``fill_in``), with the gradient that they make along with it; its products and everything else in it.
* elementwise: arithmetic, activations, normalisations, attention's softmax, sums, maxima, filling, copying.
* dropout: its random numbers and the mask made of them (the product with the mask is elementwise).
* indexing: gathers, scatters, lookups of embeddings and their gradients, sorts, searches, concatenations.
* sparse product: of graphs.
* optimizer: its step.
* other operators: whatever has none of these names, such as the random numbers of views.
* between operators: Python, autograd, the interpreter's way from one operator to the next.
"""

STEP = "a step of the benchmark"
DROPOUT, FILL_IN = "dropout's mask", "fill_in"

ENCLOSING = {
    "_FullSoftmax": "softmax",
    "_FullSoftmaxBackward": "softmax",
    "_MaskedItem": "softmax",
    "_MaskedItemBackward": "softmax",
    FILL_IN: "softmax",
    DROPOUT: "dropout",
    "_Product": "sparse product",
    "_ProductBackward": "sparse product",
}
"""The kind of everything inside something of such a name."""

NAMES = {
    "matrix product": "mm addmm addmm_ bmm baddbmm matmul linear einsum dot mv _scaled_dot_product scaled_dot "
    "convolution _convolution mkldnn",
    "sparse product": "_sparse sparse embedding_bag _embedding_bag",
    "indexing": "index embedding gather scatter take select nonzero masked_select masked_scatter sort argsort "
    "searchsorted bucketize repeat_interleave cat stack unique _unique bincount slice narrow split unbind chunk "
    "tensor_split cumsum topk arange local_scalar _local_scalar item tril triu view reshape _unsafe_view as_strided "
    "transpose permute t numpy_T expand unsqueeze squeeze diagonal alias detach contiguous flatten",
    "optimizer": "_fused_adam",
    "elementwise": "add sub mul div neg exp exp2 log log2 log1p pow sqrt rsqrt square abs sign tanh sigmoid relu elu "
    "gelu softplus erf where masked_fill fill zero zeros ones full eye copy _to_copy to clone eq ne lt le gt ge "
    "logical bitwise __and __or __xor clamp minimum maximum max min amax amin argmax argmin sum mean norm linalg "
    "logsumexp logaddexp layer_norm native_layer_norm softmax _softmax log_softmax _log_softmax threshold "
    "binary_cross_entropy lerp addcmul addcdiv any all isfinite isnan floor ceil round remainder repeat "
    "native_dropout rsub special ones_like zeros_like empty resize new_ flip roll var std",
}
"""Beginnings of the names of operators, after ``aten::``, by kind; the longest that fits decides."""

BEGINNINGS = {word: kind for kind, words in NAMES.items() for word in words.split()}


def kind_of(name: str, enclosing: Sequence[str]) -> str:
    """Gives the kind of an operator.

    Args:
        name: As the profiler calls it.
        enclosing: The names of what it runs in.

    Returns:
        One of ``KINDS``.
    """
    own = _own_kind(name)
    inside = next((ENCLOSING[one] for one in enclosing if one in ENCLOSING), ENCLOSING.get(name))
    if inside == "softmax":
        return "softmax: products" if own == "matrix product" else "softmax: the rest"
    if inside is not None:
        return inside
    if any(one.startswith("Optimizer.step") for one in (name, *enclosing)):
        return "optimizer"
    return own


def _own_kind(name: str) -> str:
    if not name.startswith("aten::"):
        return "between operators"
    bare = name.removeprefix("aten::")
    fitting = [word for word in BEGINNINGS if bare == word or (len(word) > 1 and bare.startswith(word))]
    return BEGINNINGS[max(fitting, key=len)] if fitting else "other operators"


@contextmanager
def named() -> Iterator[None]:
    """Gives the parts that are no autograd functions a name that the profiler shows, inside the block."""
    places: list[tuple[Any, str, str]] = [(dropout, "keep_mask", DROPOUT), (ecl_sr, "fill_in", FILL_IN)]
    earlier = [getattr(module, name) for module, name, _ in places]
    for (module, name, shown), function in zip(places, earlier, strict=True):
        setattr(module, name, _recorded(shown, function))
    try:
        yield
    finally:
        for (module, name, _), function in zip(places, earlier, strict=True):
            setattr(module, name, function)


def _recorded(shown: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*arguments: Any, **named_ones: Any) -> Any:
        with record_function(shown):
            return function(*arguments, **named_ones)

    return call


def step_profile(step: Callable[[int], None], steps: int) -> dict[str, object]:
    """Gives the share of each kind of work in the time of some steps.

    The profiler makes what happens between operators slower: the shares of operators are a little too small.

    Args:
        step: Makes the step of a number.
        steps: How many are made.

    Returns:
        ``shares`` by kind, with sum 1; ``operators``: the ten names that take most, each with kind and share.
    """
    with named(), profile(activities=[ProfilerActivity.CPU]) as seen:
        for number in range(steps):
            with record_function(STEP):
                step(number)
    shares = dict.fromkeys(KINDS, 0.0)
    operators: dict[tuple[str, str], float] = {}
    for event in seen.events():
        enclosing = list(_enclosing(event))
        if STEP not in (event.name, *enclosing):
            continue
        kind = kind_of(event.name, enclosing)
        shares[kind] += event.self_cpu_time_total
        key = (kind, event.name)
        operators[key] = operators.get(key, 0.0) + event.self_cpu_time_total
    total = sum(shares.values())
    most = sorted(operators.items(), key=lambda one: -one[1])[:10]
    return {
        "shares": {kind: spent / total for kind, spent in shares.items()},
        "operators": [{"kind": kind, "name": name, "share": spent / total} for (kind, name), spent in most],
    }


def _enclosing(event: Any) -> Iterator[str]:
    """Gives the names of what an event runs in, from the inside out."""
    parent = event.cpu_parent
    while parent is not None:
        yield parent.name
        parent = parent.cpu_parent
