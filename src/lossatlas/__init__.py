"""Loss Atlas."""

__version__ = "0.10.0"
