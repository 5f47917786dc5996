"""One module a way to tune: `Config` and `apply(upstream, config)`, in place, on an upstream that is frozen throughout."""
