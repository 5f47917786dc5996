"""Adapt speech foundation models by hierarchical fusion of their frozen layers."""

__version__ = "0.1.0"
