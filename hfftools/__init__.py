"""Adapt speech foundation models by hierarchical fusion of their frozen layers."""

import os

__version__ = "0.1.0"

# oneDNN keeps a compiled convolution for each shape that it has met, 1024 by default. No two batches of speech have the
# same length: memory would grow by hundreds of megabytes, and nothing become faster. It reads this at its first use.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
