"""Insert new parts into the blocks of an upstream, in place.

Places have names: `attention` and `feed_forward` are the outputs of these sublayers, before their residual is added (the
second feed-forward of a Conformer block); `q`, `k`, `v`, `out`, `up`, `down` are linear layers. The class of a block lists
them as `PLACES` = {name: dotted path of the module in the block}; the class of an attention that reads learned rows has
`TAKES_PREFIX`. A subclass does not inherit either: it may compute something else with the same weights, and then a part
that is inserted would have no effect, without any error.
"""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from hfftools.log import UserError, suggest
from hfftools.nn.attention import Prefix
from hfftools.upstream.base import Upstream, whole_numbers
from hfftools.upstream.source import Source

ANY = "any block"  # wanted by a method that attaches to blocks, but to no named place in them


class After(nn.Module):
    """Compute `part` of what `base` puts out."""

    def __init__(self, base: nn.Module, part: nn.Module):
        super().__init__()
        self.base, self.part = base, part

    def forward(self, x: Tensor, *rest: Any) -> Tensor:
        return self.part(self.base(x, *rest))


class Beside(nn.Module):
    """Compute what `base` puts out plus `part` of what enters it."""

    def __init__(self, base: nn.Module, part: nn.Module):
        super().__init__()
        self.base, self.part = base, part

    def forward(self, x: Tensor, *rest: Any) -> Tensor:
        return self.base(x, *rest) + self.part(x)


class Around(nn.Module):
    """Compute `part` of what enters and of `base`, a linear layer whose weight the part changes."""

    def __init__(self, base: nn.Module, part: nn.Module):
        super().__init__()
        self.base, self.part = base, part

    def forward(self, x: Tensor) -> Tensor:
        return self.part(x, self.base)


GRAFTS = (After, Beside, Around)


def check(source: Source, method: str, places: Iterable[str]) -> None:
    """Raise UserError where a method wants `places` that the blocks of an upstream lack; nothing is loaded for it."""
    wanted, known = set(places), source.places
    if known is None or not wanted:
        return
    if not known:
        raise UserError(f"tune '{method}' needs an upstream with blocks, and {source.text} has none; use tune 'frozen'")
    for place in sorted(wanted - {ANY} - known.keys()):
        raise UserError(f"tune '{method}': {source.text} has no '{place}' in its blocks; {suggest(place, known)}")


def choose_blocks(upstream: Upstream, wanted: Any, option: str = "tune.layers") -> list[nn.Module]:
    """Return blocks, lowest first, for `all`, `all_but_top`, `topN`, or a list of numbers 1..L.

    Negative numbers count from the top. Of two upstreams as one, the words apply to each, and the second's numbers
    follow the first's.
    """
    blocks = list(upstream.blocks())
    if len(upstream.halves()) > 1 and isinstance(wanted, str):
        return [b for half in upstream.halves() if len(half.blocks()) for b in choose_blocks(half, wanted, option)]
    numbers = _block_numbers(wanted, len(blocks), option)
    if any(n == 0 or abs(n) > len(blocks) for n in numbers):
        raise UserError(f"{option}: '{wanted}' is outside the blocks 1..{len(blocks)} of {upstream.name}")
    chosen = {n % (len(blocks) + 1) for n in numbers}
    return [block for number, block in enumerate(blocks, 1) if number in chosen]


def _block_numbers(wanted: Any, count: int, option: str) -> list[int]:
    """Return the numbers of the blocks that `wanted` names, out of `count`; raise UserError for other words."""
    if wanted == "all":
        return list(range(1, count + 1))
    if wanted == "all_but_top":
        return list(range(1, count))
    if isinstance(wanted, str) and wanted.startswith("top") and wanted[3:].isdecimal():
        numbers = [-n for n in range(1, int(wanted[3:]) + 1)]
    else:
        numbers = whole_numbers([wanted] if isinstance(wanted, int) else wanted)
    if not numbers:
        raise UserError(
            f"{option}: '{wanted}' is neither all, all_but_top, top4, nor a list of block numbers such as [2,4,6]"
        )
    return numbers


def _find(block: nn.Module, place: str) -> tuple[nn.Module, str]:
    """Return the module that holds a place, and the place's name in it; earlier grafts on the way are looked through."""
    known = vars(type(block)).get("PLACES")
    if known is None:
        raise UserError(
            f"{type(block).__name__} is no block that tune methods know: its class has no PLACES; use tune 'frozen'"
        )
    if place not in known:
        raise UserError(f"there is no '{place}' in a {type(block).__name__}; {suggest(place, known)}")
    *path, name = known[place].split(".")
    owner = block
    for step in path:
        owner = original(getattr(owner, step))
    return owner, name


def original(module: nn.Module) -> nn.Module:
    """Return what a place held before anything was grafted there."""
    while isinstance(module, GRAFTS):
        module = module.base
    return module


def at(block: nn.Module, place: str) -> Any:
    """Return the module at a place as it was before grafting; its sizes tell those of the parts that go there.

    It is a Linear, but for `attention` and `feed_forward`.
    """
    owner, name = _find(block, place)
    return original(getattr(owner, name))


def width(block: nn.Module) -> int:
    """Return D, the width of what a block takes and gives."""
    return at(block, "out").out_features


def after(block: nn.Module, place: str, part: nn.Module) -> None:
    """Send what a place puts out through `part`."""
    owner, name = _find(block, place)
    setattr(owner, name, After(getattr(owner, name), part))


def beside(block: nn.Module, place: str, part: nn.Module) -> None:
    """Add `part` of what enters a place to what it puts out."""
    owner, name = _find(block, place)
    setattr(owner, name, Beside(getattr(owner, name), part))


def around(block: nn.Module, place: str, part: nn.Module) -> None:
    """Let `part` compute what the linear layer at a place puts out; its `merged(weight)` is the weight that it acts as."""
    owner, name = _find(block, place)
    setattr(owner, name, Around(getattr(owner, name), part))


def prefix(block: nn.Module, rows: Prefix) -> None:
    """Put learned rows before the keys and values of a block's attention."""
    attention = at(block, "attention")
    if "TAKES_PREFIX" not in vars(type(attention)):
        raise UserError(f"{type(attention).__name__} is no attention that prefix tuning knows")
    attention.prefix = rows


def train_norms(block: nn.Module) -> None:
    """Let the gains and biases of a block's own LayerNorms train; call it before adapters with norms are set in."""
    for module in block.modules():
        if isinstance(module, nn.LayerNorm):
            module.requires_grad_(True)


def merge(upstream: nn.Module) -> int:
    """Replace the weight of every linear layer that a part changes (LoRA) by what it acts as, and take the part out.

    Return how many. For what is to run without our parts: the merged weights are new tensors, as large as the old ones.
    """
    merged = 0
    for module in list(upstream.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, Around):
                base, part = child.base, child.part
                assert isinstance(base, nn.Linear)
                old, change = base.weight, getattr(part, "merged")
                base.weight = nn.Parameter(
                    change(old).detach().to(old.dtype), old.requires_grad
                )  # others share the old
                setattr(module, name, base)
                merged += 1
    return merged
