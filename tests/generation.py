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
    longest: int = 512


class ToyDecoder:
    """Pre-normalised decoder: attention of grouped queries with a rotary embedding, and an MLP, in every layer."""

    def __init__(self, size: Size, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.size = size
        width, queries, keys = (n * size.head_dim for n in (size.nheads, size.nheads, size.nheads_k))

        def weight(rows: int, columns: int, gain: float = 1.0) -> Tensor:
            drawn = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
            return torch.mul(drawn, gain * rows**-0.5).float()

        self.embedding = weight(size.vocabulary, width, 0.7 * size.vocabulary**0.5)
        # Sharp attention with a large share of the sum makes tokens depend on what the caches hold.
        shapes = (
            (width, queries, 3.0),
            (width, keys),
            (width, keys),
            (queries, width, 3.0),
            (width, 2 * width),
            (2 * width, width),
        )
        layers = [tuple(weight(*shape) for shape in shapes) for _ in range(size.layers)]
        head = weight(width, size.vocabulary)
        self._weights: dict[torch.dtype, list[tuple[Tensor, ...]]] = {torch.float32: [*layers, (head,)]}
        pairs = torch.arange(size.head_dim // 2, dtype=torch.float64)
        angles = torch.arange(size.longest, dtype=torch.float64)[:, None] * 100.0 ** (-2 * pairs / size.head_dim)
        self.cos, self.sin = angles.cos().float(), angles.sin().float()

    def logits(self, tokens: Tensor, attend: Attend, dtype: torch.dtype = torch.float32) -> Tensor:
        """``(batch, seqlen, vocabulary)``; ``attend(layer, q, k, v)`` turns queries and keys and attends."""
        x = self.embedding[tokens].to(dtype)
        if dtype not in self._weights:
            self._weights[dtype] = [tuple(w.to(dtype) for w in layer) for layer in self._weights[torch.float32]]
        *layers, (head,) = self._weights[dtype]
        for number, (wq, wk, wv, wo, up, down) in enumerate(layers):
            h = rms_norm(x, x.shape[-1:])
            q, k, v = (y.unflatten(-1, (-1, self.size.head_dim)) for y in (h @ wq, h @ wk, h @ wv))
            x = x + attend(number, q, k, v).flatten(-2) @ wo
            x = x + gelu(rms_norm(x, x.shape[-1:]) @ up) @ down
        return rms_norm(x, x.shape[-1:]) @ head

    def recomputed(self, texts: list[list[int]], dtype: torch.dtype) -> Tensor:
        """Logits ``(batch, longest, vocabulary)`` of whole texts, with attention as its definition reads.

        What stands behind the end of a shorter text changes nothing before it, and means nothing.
        """
        longest = max(len(text) for text in texts)
        tokens = torch.tensor([text + [0] * (longest - len(text)) for text in texts])
        cos, sin = (x[:longest, None].to(dtype) for x in (self.cos, self.sin))

        def turned(x: Tensor) -> Tensor:
            one, other = x.chunk(2, -1)
            return torch.cat([one * cos - other * sin, other * cos + one * sin], -1)

        def attend(number: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            group = self.size.nheads // self.size.nheads_k
            k, v = turned(k).repeat_interleave(group, 2), v.repeat_interleave(group, 2)
            scores = torch.einsum("bihd,bjhd->bhij", turned(q), k) * self.size.head_dim**-0.5
            hidden = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
            return torch.einsum("bhij,bjhd->bihd", scores.masked_fill(hidden, float("-inf")).softmax(-1), v)

        return self.logits(tokens, attend, dtype)

    def generate_anew(self, prompts: list[list[int]], count: int) -> list[list[int]]:
        """``count`` tokens after every prompt; every step recomputes the whole texts in float64."""
        texts = [list(prompt) for prompt in prompts]
        for _ in range(count):
            for text, logits in zip(texts, self.recomputed(texts, torch.float64), strict=True):
                text.append(int(logits[len(text) - 1].argmax()))
        return [text[len(prompt) :] for text, prompt in zip(texts, prompts, strict=True)]


class Certainty(NamedTuple):
    """What recomputing a text in float64 says of it: its tokens, and how certain they are.

    ``text`` are the tokens that follow the prompt and every prefix of the given text: the mask is causal, so that one
    pass over the whole text recomputes all of them. ``error`` is how far the given logits are from the recomputed ones,
    ``allowed`` how far they may be, ``margin`` the smallest lead of a best logit.

    Allowed is what is allowed to attention in float32 (``flash_attn.testing.Bound``). A token can be another one only
    where the best logit leads the second by less than twice the error.
    """

    text: list[int]
    error: float
    allowed: float
    margin: float


def certainty(model: ToyDecoder, prompt: list[int], text: list[int], logits: Tensor) -> Certainty:
    """Of the logits ``(len(text), vocabulary)`` that chose every token of a text."""
    exact, plain = (
        model.recomputed([prompt + text], x)[0, len(prompt) - 1 : -1] for x in (torch.float64, torch.float32)
    )
    best = exact.topk(2).values
    error = float((logits - exact).abs().max())
    text = [int(token) for token in exact.argmax(-1)]
    return Certainty(text, error, Bound(torch.float32, 0).allowed(exact, plain), float((best[:, 0] - best[:, 1]).min()))


def random_prompts(size: Size, seqlens: tuple[int, ...], seed: int) -> list[list[int]]:
    """Prompts of so many tokens."""
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.randint(0, size.vocabulary, (seqlen,), generator=generator) for seqlen in seqlens]
    return [[int(token) for token in prompt] for prompt in drawn]


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
