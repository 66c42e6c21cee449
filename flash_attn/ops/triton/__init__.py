"""Operators whose import path names Triton; importing them does not need Triton."""
