"""The toy decoder of generation.py on a simulated MI300X: the tokens of recomputing the whole text."""

from __future__ import annotations

from collections.abc import Callable

from generation import (  # type: ignore[import-not-found]
    PagedCaches,
    Size,
    ToyDecoder,
    certainty,
    generate_from_pages,
    random_prompts,
)

TOKENS = 8
MODEL = ToyDecoder(Size(longest=64), seed=4)
PROMPTS = random_prompts(MODEL.size, (16, 20), seed=4)


def test_tokens_of_full_recomputation(simulate: Callable[[str], None]) -> None:
    recomputed = MODEL.generate_anew(PROMPTS, TOKENS + 4)
    simulate("gfx942")
    texts, logits = generate_from_pages(PagedCaches(MODEL, 2, 16), PROMPTS, recomputed, TOKENS)
    for prompt, text, rows, expected in zip(PROMPTS, texts, logits, recomputed, strict=True):
        assert text[:TOKENS] == expected[:TOKENS]
        found = certainty(MODEL, prompt, text, rows)
        assert text == found.text
        assert found.error <= found.allowed
        assert found.margin > 20 * found.allowed
