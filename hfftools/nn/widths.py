"""Read the width of the fused stream from {layer: width}; layers differ in width where two upstreams are fused."""

from hfftools.log import UserError

ANY_WIDTH = "concat, hff, l_adapter, ladder"  # the fusions that project each layer by itself


def one_width(dims: dict[int, int], fuse: str) -> int:
    """Return the width that all layers share; raise UserError in the name of the fusion `fuse` where they differ."""
    widths = sorted(set(dims.values()))
    if len(widths) > 1:
        raise UserError(f"fuse.name: '{fuse}' needs layers of one width, not of {widths}; {ANY_WIDTH} take any")
    return widths[0]


def first_width(dims: dict[int, int]) -> tuple[int, list[int]]:
    """Return the width of the lowest layer, and the layers that have this width."""
    width = dims[min(dims)]
    return width, [layer for layer, dim in dims.items() if dim == width]
