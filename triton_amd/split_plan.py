"""Into how many parts the keys of a problem are split, from what the host knows."""

from __future__ import annotations

from .problem import Problem

# Fewer keys than these are not worth a program and its share of the combination.
_MIN_KEYS_PER_SPLIT = 256
_MAX_SPLITS = 128


def most_keys_of_tile(problem: Problem, tokens: int) -> int:
    """The most keys that a tile of ``tokens`` neighbouring query rows can see."""
    keys = min(problem.max_seqlen_k, problem.capacity_k)
    if problem.window_left >= 0 and problem.window_right >= 0:
        keys = min(keys, problem.window_left + problem.window_right + tokens)
    if problem.attention_chunk > 0:
        chunks = (tokens - 2 + problem.attention_chunk) // problem.attention_chunk + 1
        keys = min(keys, chunks * problem.attention_chunk)
    return keys


def choose_num_splits(programs: int, keys: int, slots: int) -> int:
    """How many programs share the keys of a tile.

    Args:
        programs: programs of an unsplit launch.
        keys: the most keys that a tile can see.
        slots: programs that the GPU runs at the same time.

    Returns:
        As many as run in one round, 1 where the unsplit launch fills four fifths of the GPU: the last round of
        an unsplit launch costs less there than a second launch and the traffic of partial results.
    """
    if programs == 0 or 5 * programs >= 4 * slots:
        return 1
    return max(1, min(slots // programs, -(-keys // _MIN_KEYS_PER_SPLIT), _MAX_SPLITS))
