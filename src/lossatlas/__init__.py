"""Loss Atlas."""

__version__ = "0.19.0"
