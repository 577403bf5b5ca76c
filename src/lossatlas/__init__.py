"""Loss Atlas."""

__version__ = "0.26.0"
