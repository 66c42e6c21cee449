"""Layers that models build around attention."""
