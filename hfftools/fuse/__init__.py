"""One module a fusion: `Config` and `Fuse(dims, config)` with `.out_dim`; {layer: h [B, T, D]} in, x [B, T, F] out.

`dims` is {layer number: width of that layer's state}, lowest first; widths differ where two upstreams are fused.

Each Config has `layers`: `all`, `last`, or a list of layer numbers (negative ones count from the top).
"""
