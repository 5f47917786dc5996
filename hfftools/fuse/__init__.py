"""One module a fusion: `Config` and `Fuse(layers, dim, config)` with `.out_dim`; {layer: h [B, T, D]} in, x [B, T, F] out.

Each Config has `layers`: `all`, `last`, or a list of layer numbers (negative ones count from the top).
"""
