"""Read the width of the fused stream from {layer: width}; layers differ in width where two upstreams are fused."""


def first_width(dims: dict[int, int]) -> tuple[int, list[int]]:
    """Return the width of the lowest layer, and the layers that have this width."""
    width = dims[min(dims)]
    return width, [layer for layer, dim in dims.items() if dim == width]
