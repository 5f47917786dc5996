"""Tuning methods, one module each, with `Config`, `places(config)` and `apply(upstream, config)`.

`places` names the positions in the blocks to which the method attaches modules (see upstream/graft.py), so that a family
without them is refused before anything is loaded. `apply` changes an upstream in place; all its parameters are frozen
before, and afterwards `requires_grad` says which ones train.
"""
