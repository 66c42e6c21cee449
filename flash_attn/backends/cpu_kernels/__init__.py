"""Tiled attention in PyTorch operations: the kernels of the ``cpu`` backend.

A call is cut into units (sequences and KV heads of equal lengths, :mod:`.units`), a unit into row tiles and key
blocks (:mod:`.tiles`); a tile of logits is made by :mod:`.logits`, and :mod:`.forward` and :mod:`.backward` loop.
"""
