"""Which tile a program works on.

Tiles of one head follow each other, then those of the next head that shares its K and V: what runs at the same time
reads the same K and V. On a chip made of several dies (XCDs of an MI300) programs are handed out to them in turn,
each die with a cache of its own, so that the order is arranged for every die to get heads of its own.
"""

import triton
import triton.language as tl


@triton.jit
def tile_of_program(num_blocks, nheads, NUM_XCDS: tl.constexpr, LAST_FIRST: tl.constexpr):
    """(block, head, batch) of this program of a one-dimensional grid; ``LAST_FIRST`` starts with the last block."""
    tile = tl.program_id(0)
    if NUM_XCDS > 1:
        programs = tl.num_programs(0)
        die = tile % NUM_XCDS
        tile = die * (programs // NUM_XCDS) + tl.minimum(die, programs % NUM_XCDS) + tile // NUM_XCDS
    block = tile % num_blocks
    if LAST_FIRST:
        block = num_blocks - 1 - block
    head = tile // num_blocks % nheads
    return block, head, tile // num_blocks // nheads
