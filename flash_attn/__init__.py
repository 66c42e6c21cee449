"""Fast, exact attention for PyTorch: one API over AMD, NVIDIA and CPU backends."""

__version__ = "2.8.3+mb0.1.0"
