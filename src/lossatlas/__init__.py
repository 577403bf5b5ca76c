"""Loss Atlas."""

__version__ = "0.22.0"
