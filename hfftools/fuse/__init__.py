"""Fusion methods, one module each, with `Config` and `Fuse(dims, config)`: {layer: h [B, T, D]} -> x [B, T, F].

`dims` is {layer number: width of that layer's state}, lowest first; widths differ where two upstreams are fused, and
`any_width` of a `Fuse` says whether it takes that. A `Fuse` has the width F as `out_dim`. Each Config has `layers`: `all`,
`blocks` (all but the input of the first block), `last`, or a list of layer numbers (negative ones count from the top).
"""
