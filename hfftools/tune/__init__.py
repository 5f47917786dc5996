"""One module a way to tune: `Config`, `places(config)` and `apply(upstream, config)`; what trains has `requires_grad`.

`places` names where in the blocks it attaches (see upstream/graft.py), so that a family without them is refused before
anything is loaded. `apply` works in place, on an upstream that is frozen throughout.
"""
