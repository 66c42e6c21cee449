"""A toy decoder that generates text greedily: through paged caches as a serving engine does, or recomputing everything.

Weights are random, so that a token says whether every key and value was the right one: a margin between the two best
logits that is far wider than their error makes that certain, and the tests measure both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import gelu, rms_norm

from flash_attn import flash_attn_with_kvcache
from flash_attn.testing import Bound

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
CHUNK = 16
DRAFTED = 3


@dataclass(frozen=True)
class Size:
    """Dimensions of a decoder."""

    layers: int = 8
    vocabulary: int = 61
    nheads: int = 4
    nheads_k: int = 2
    head_dim: int = 16
    longest: int = 384


class ToyDecoder:
    """Pre-normalised decoder: attention of grouped queries with a rotary embedding, and an MLP, in every layer."""

    def __init__(self, size: Size, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.size = size
        width, queries, keys = (n * size.head_dim for n in (size.nheads, size.nheads, size.nheads_k))

        def weight(rows: int, columns: int, gain: float = 1.0) -> Tensor:
            drawn = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
            return (gain * rows**-0.5 * drawn).float()

        self.embedding = weight(size.vocabulary, width, 0.7 * size.vocabulary**0.5)
        # Sharp attention with a large share of the sum makes tokens depend on what the caches hold.
        self.layers = [
            (weight(width, queries, 3.0), weight(width, keys), weight(width, keys), weight(queries, width, 3.0))
            + (weight(width, 2 * width), weight(2 * width, width))
            for _ in range(size.layers)
        ]
        self.head = weight(width, size.vocabulary)
        pairs = torch.arange(size.head_dim // 2, dtype=torch.float64)
        angles = torch.arange(size.longest, dtype=torch.float64)[:, None] * 100.0 ** (-2 * pairs / size.head_dim)
        self.cos, self.sin = angles.cos().float(), angles.sin().float()

    def logits(self, tokens: Tensor, attend: Attend, dtype: torch.dtype = torch.float32) -> Tensor:
        """``(batch, seqlen, vocabulary)``; ``attend(layer, q, k, v)`` turns queries and keys and attends."""
        x = self.embedding[tokens].to(dtype)
        for number, layer in enumerate(self.layers):
            wq, wk, wv, wo, up, down = (weight.to(dtype) for weight in layer)
            h = rms_norm(x, x.shape[-1:])
            q, k, v = (y.unflatten(-1, (-1, self.size.head_dim)) for y in (h @ wq, h @ wk, h @ wv))
            x = x + attend(number, q, k, v).flatten(-2) @ wo
            x = x + gelu(rms_norm(x, x.shape[-1:]) @ up) @ down
        return rms_norm(x, x.shape[-1:]) @ self.head.to(dtype)

    def recomputed(self, tokens: list[int], dtype: torch.dtype) -> Tensor:
        """Logits ``(seqlen, vocabulary)`` of whole texts, with attention as its definition reads."""
        cos, sin = (x[: len(tokens), None].to(dtype) for x in (self.cos, self.sin))

        def turned(x: Tensor) -> Tensor:
            one, other = x.chunk(2, -1)
            return torch.cat([one * cos - other * sin, other * cos + one * sin], -1)

        def attend(number: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            group = self.size.nheads // self.size.nheads_k
            k, v = turned(k).repeat_interleave(group, 2), v.repeat_interleave(group, 2)
            scores = torch.einsum("bihd,bjhd->bhij", turned(q), k) * self.size.head_dim**-0.5
            hidden = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
            return torch.einsum("bhij,bjhd->bihd", scores.masked_fill(hidden, float("-inf")).softmax(-1), v)

        return self.logits(torch.tensor([tokens]), attend, dtype)[0]

    def generate_anew(self, prompt: list[int], count: int) -> list[int]:
        """``count`` tokens after a prompt; every one recomputes the whole text in float64."""
        tokens = list(prompt)
        for _ in range(count):
            tokens.append(int(self.recomputed(tokens, torch.float64)[-1].argmax()))
        return tokens[len(prompt) :]


class Certainty(NamedTuple):
    """How far logits are from those of recomputing the text in float64, how far they may be, and the smallest margin.

    Allowed is what is allowed to attention in float32 (``flash_attn.testing.Bound``). A token can be another one only
    where the best logit leads the second by less than twice the error.
    """

    error: float
    allowed: float
    margin: float


def certainty(model: ToyDecoder, prompt: list[int], text: list[int], logits: Tensor) -> Certainty:
    """Of the logits ``(len(text), vocabulary)`` that chose every token of a text."""
    exact, plain = (model.recomputed(prompt + text, x)[len(prompt) - 1 : -1] for x in (torch.float64, torch.float32))
    best = exact.topk(2).values
    error = float((logits - exact).abs().max())
    return Certainty(error, Bound(torch.float32, 0).allowed(exact, plain), float((best[:, 0] - best[:, 1]).min()))


def random_prompt(size: Size, seqlen: int, seed: int) -> list[int]:
    """A prompt of ``seqlen`` tokens."""
    drawn = torch.randint(0, size.vocabulary, (seqlen,), generator=torch.Generator().manual_seed(seed))
    return [int(token) for token in drawn]


class PagedCaches:
    """Keys and values of every layer in shuffled pages, and the tokens that each sequence has there."""

    def __init__(self, model: ToyDecoder, batch: int, page_size: int) -> None:
        size = model.size
        pages = -(-size.longest // page_size)
        shape = (batch * pages, page_size, size.nheads_k, size.head_dim)
        order = torch.randperm(batch * pages, generator=torch.Generator().manual_seed(1))
        self.model = model
        self.block_table = order.to(torch.int32).view(batch, pages)
        self.k, self.v = ([torch.full(shape, float("nan")) for _ in range(size.layers)] for _ in "kv")
        self.seqlens = torch.zeros(batch, dtype=torch.int32)

    def logits(self, tokens: Tensor, sequences: slice = slice(None)) -> Tensor:
        """Logits of tokens ``(batch, n)`` that follow what the caches hold, and are written there."""

        def attend(number: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            out = flash_attn_with_kvcache(
                q,
                self.k[number],
                self.v[number],
                k,
                v,
                self.model.cos,
                self.model.sin,
                cache_seqlens=self.seqlens[sequences],
                block_table=self.block_table[sequences],
                causal=True,
                rotary_interleaved=False,
            )
            assert isinstance(out, Tensor)
            return out

        return self.model.logits(tokens, attend)


def generate_from_pages(
    caches: PagedCaches, prompts: list[list[int]], drafts: list[list[int]], count: int
) -> tuple[list[list[int]], list[Tensor]]:
    """``count`` tokens or a few more after every prompt, and the logits that chose them.

    Prompts are read in chunks, a sequence at a time. Then all sequences take a step together: of one token, or every
    other time of a token and ``DRAFTED`` more, of which those are kept that the logits confirm. Drafts are what
    ``drafts`` has for a place, spoilt from another place on in every step, so that sequences advance unevenly.
    """
    texts: list[list[int]] = [[] for _ in prompts]
    chosen: list[list[Tensor]] = [[] for _ in prompts]
    for b, prompt in enumerate(prompts):
        for first in range(0, len(prompt), CHUNK):
            chunk = prompt[first : first + CHUNK]
            logits = caches.logits(torch.tensor([chunk]), slice(b, b + 1))[0, -1]
            caches.seqlens[b] += len(chunk)
        chosen[b].append(logits)
        texts[b].append(int(logits.argmax()))
    step = 0
    while min(len(text) for text in texts) < count:
        fed = []
        for b, text in enumerate(texts):
            draft = [token if i < (step + b) % 4 else token + 1 for i, token in enumerate(drafts[b][len(text) :])]
            draft = [token % caches.model.size.vocabulary for token in (draft + [0] * DRAFTED)[:DRAFTED]]
            fed.append([text[-1], *draft] if step % 2 else [text[-1]])
        all_logits = caches.logits(torch.tensor(fed))
        for b, logits in enumerate(all_logits):
            for i, row in enumerate(logits):
                caches.seqlens[b] += 1
                chosen[b].append(row)
                texts[b].append(int(row.argmax()))
                if i + 1 < len(fed[b]) and fed[b][i + 1] != texts[b][-1]:
                    break
        step += 1
    return texts, [torch.stack(rows) for rows in chosen]
