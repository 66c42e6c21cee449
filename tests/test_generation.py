"""Generating through paged caches on the cpu backend gives the tokens of recomputing the whole text for each."""

from __future__ import annotations

import pytest
import torch
from generation import PagedCaches, Size, ToyDecoder, certainty, generate_from_pages, random_prompts
from torch import Tensor

from flash_attn import use_backend

TOKENS, FEW = 256, 40
MODEL = ToyDecoder(Size(), seed=4)
PROMPTS = random_prompts(MODEL.size, (16, 21), seed=4)
NO_DRAFTS: list[list[int]] = [[], []]


def _from_pages(page_size: int, drafts: list[list[int]], tokens: int) -> list[list[int]]:
    """Texts that recomputation confirms, with room for doubt in no token."""
    with use_backend("cpu"):
        texts, logits = generate_from_pages(PagedCaches(MODEL, len(PROMPTS), page_size), PROMPTS, drafts, tokens)
    for prompt, text, rows in zip(PROMPTS, texts, logits, strict=True):
        found = certainty(MODEL, prompt, text, rows)
        assert text == found.text
        assert found.error <= found.allowed
        assert found.margin > 20 * found.allowed
    return texts


def _repeats_itself(text: list[int]) -> bool:
    fours = list(zip(text, text[1:], text[2:], text[3:], strict=False))
    return len(set(fours)) <= len(fours) / 2


@pytest.fixture(scope="module")
def generated() -> list[list[int]]:
    """Texts that no draft helped with."""
    return _from_pages(16, NO_DRAFTS, TOKENS)


def test_tokens_of_full_recomputation(generated: list[list[int]]) -> None:
    assert [len(text) for text in generated] >= [TOKENS, TOKENS]
    assert not any(_repeats_itself(text) for text in generated)


@pytest.mark.parametrize(("page_size", "tokens"), [(16, TOKENS), (1, FEW), (256, FEW)])
def test_drafts_change_no_token(page_size: int, tokens: int, generated: list[list[int]]) -> None:
    texts = _from_pages(page_size, generated, tokens)
    assert [text[:tokens] for text in texts] == [text[:tokens] for text in generated]
    # Drafts were kept, and not as many of them in every sequence.
    assert len({len(text) for text in texts}) > 1


@pytest.mark.parametrize("tokens", [FEW, pytest.param(TOKENS, marks=pytest.mark.slow)])
def test_recomputing_for_every_token(tokens: int, generated: list[list[int]]) -> None:
    assert MODEL.generate_anew(PROMPTS, tokens) == [text[:tokens] for text in generated]


class _WrongPage(PagedCaches):
    """Gives the first sequence the first page of the other one, once both have left it."""

    mistaken = False

    def logits(self, tokens: Tensor, sequences: slice = slice(None)) -> Tensor:
        if not self.mistaken and int(self.seqlens.min()) > 16:
            self.block_table[0, 0] = self.block_table[1, 0]
            self.mistaken = True
        return super().logits(tokens, sequences)


def test_a_wrong_page_gives_other_tokens(generated: list[list[int]]) -> None:
    with use_backend("cpu"):
        caches = _WrongPage(MODEL, len(PROMPTS), 16)
        texts, _ = generate_from_pages(caches, PROMPTS, NO_DRAFTS, FEW)
    assert caches.mistaken
    assert texts[0] != generated[0][: len(texts[0])]
    assert texts[1] == generated[1][: len(texts[1])]


def test_recomputing_is_causal() -> None:
    text = PROMPTS[1]
    whole, part = (MODEL.recomputed([tokens], torch.float64)[0] for tokens in (text, text[:9]))
    torch.testing.assert_close(whole[:9], part)
