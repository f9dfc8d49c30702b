"""Seeded mutations of small files: the same seed gives the same hostile files on every machine.

Used by test_fuzz.py. Mutations are those that find faults in parsers of binary and of text formats:
bits, bytes at their limits, cut, doubled and moved pieces, splices of two files, and long runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

# Numbers at which lengths and offsets go wrong, in both byte orders.
EDGES = [
    number.to_bytes(size, order)
    for size in (1, 2, 4, 8)
    for number in (0, 1, (1 << (8 * size - 1)) - 1, 1 << (8 * size - 1), (1 << (8 * size)) - 1)
    for order in ("little", "big")
]
MOST_STEPS = 6  # mutations of one file
LONGEST = 1 << 20  # bytes of a mutated file


def _flip(data: bytearray, rng: Random) -> None:
    for _ in range(rng.randint(1, 8)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _edge(data: bytearray, rng: Random) -> None:
    value, at = rng.choice(EDGES), rng.randrange(len(data))
    data[at : at + len(value)] = value


def _cut(data: bytearray, rng: Random) -> None:
    at = rng.randrange(len(data))
    del data[at : at + rng.randint(1, max(1, len(data) // 4))]


def _end(data: bytearray, rng: Random) -> None:
    del data[rng.randrange(len(data)) :]


def _double(data: bytearray, rng: Random) -> None:
    at = rng.randrange(len(data))
    piece = data[at : at + rng.randint(1, 64)]
    data[at:at] = piece * rng.choice((1, 2, 300))


def _token(data: bytearray, rng: Random, tokens: Sequence[bytes]) -> None:
    at = rng.randrange(len(data))
    data[at : at + rng.choice((0, 1, 4))] = rng.choice(tokens)


def mutated(
    seeds: Sequence[bytes], tokens: Sequence[bytes], seed: int, count: int | None = None
) -> Iterator[bytes]:
    """Mutated versions of `seeds`, `count` or without end; `tokens`: words of the format."""
    rng = Random(seed)
    steps = [_flip, _edge, _cut, _end, _double]
    made = 0
    while count is None or made < count:
        made += 1
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randint(1, MOST_STEPS)):
            if not data:
                break
            kind = rng.randrange(len(steps) + 2)
            if kind < len(steps):
                steps[kind](data, rng)
            elif kind == len(steps) and tokens:
                _token(data, rng, tokens)
            else:  # the head of one file, the tail of another
                other = rng.choice(seeds)
                at = rng.randrange(len(data))
                data[at:] = other[rng.randrange(len(other) + 1) :]
        yield bytes(data[:LONGEST])
