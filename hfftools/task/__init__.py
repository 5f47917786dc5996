"""One module a task: `Config` and `Task(in_dim, units, config)` with `loss(encode, batch)` and `decode(x_BTF, lens_B)`."""
