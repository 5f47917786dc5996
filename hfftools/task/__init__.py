"""One module a task: `Config` and `Task(in_dim, units, config)`.

A task has `loss(encode, batch)`, `decode(x_BTF, lens_B)`, and `frames_needed(ids)`, the fewest with which a loss is finite.
"""
