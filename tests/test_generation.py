"""Generating through paged caches on the cpu backend gives the tokens of recomputing the whole text for each of them."""

from __future__ import annotations

import pytest
import torch
from generation import PagedCaches, Size, ToyDecoder, certainty, generate_from_pages, random_prompt
from torch import Tensor

from flash_attn import use_backend

TOKENS = 256
MODEL = ToyDecoder(Size(), seed=4)
PROMPTS = [random_prompt(MODEL.size, seqlen, seed=seqlen) for seqlen in (16, 21)]


@pytest.fixture(scope="module")
def recomputed() -> list[list[int]]:
    """Texts of ``TOKENS`` tokens, each token from a forward over everything before it."""
    return MODEL.generate_anew(PROMPTS, TOKENS)


@pytest.mark.parametrize(("page_size", "tokens"), [(16, TOKENS), (1, 64), (256, 64)])
def test_tokens_of_full_recomputation(page_size: int, tokens: int, recomputed: list[list[int]]) -> None:
    with use_backend("cpu"):
        caches = PagedCaches(MODEL, len(PROMPTS), page_size)
        texts, logits = generate_from_pages(caches, PROMPTS, recomputed, tokens)
    for prompt, text, rows, expected in zip(PROMPTS, texts, logits, recomputed, strict=True):
        assert text[:tokens] == expected[:tokens]
        found = certainty(MODEL, prompt, text, rows)
        assert found.error <= found.allowed
        assert found.margin > 20 * found.allowed
    # Drafts were kept, and not always the same number of them.
    assert len({len(text) for text in texts}) > 1


def test_a_text_does_not_repeat_itself(recomputed: list[list[int]]) -> None:
    for text in recomputed:
        fours = list(zip(text, text[1:], text[2:], text[3:], strict=False))
        assert len(set(fours)) > len(fours) / 2


class _SwappedPages(PagedCaches):
    """Exchanges the first two pages of the first sequence once both are full."""

    swapped = False

    def logits(self, tokens: Tensor, sequences: slice = slice(None)) -> Tensor:
        if not self.swapped and int(self.seqlens[0]) > 32:
            self.block_table[0, :2] = self.block_table[0, :2].flip(0)
            self.swapped = True
        return super().logits(tokens, sequences)


def test_a_wrong_page_gives_other_tokens(recomputed: list[list[int]]) -> None:
    with use_backend("cpu"):
        caches = _SwappedPages(MODEL, len(PROMPTS), 16)
        texts, _ = generate_from_pages(caches, PROMPTS, recomputed, 64)
    assert caches.swapped
    assert texts[0][:64] != recomputed[0][:64]
    assert texts[1][:64] == recomputed[1][:64]


def test_recomputing_is_causal() -> None:
    text = PROMPTS[1]
    whole, part = (MODEL.recomputed([tokens], torch.float64)[0] for tokens in (text, text[:9]))
    torch.testing.assert_close(whole[:9], part)
