"""This file cuts files into chunks where their content says so, and names the chunks: what a put reads.

Rules. A change or an insertion moves no cut but those around it, so what is kept already is met again (FastCDC; the
shortest chunk is as long as the expected one, for then the cutter skips two bytes of three). The numbers are part of
every artifact's id: other ones, or a cutter that cuts elsewhere, give the same content another id. At most `AHEAD`
blocks are in memory, whatever is read; digests are made by other threads, which hold no lock of the interpreter.
"""

from __future__ import annotations

import mmap
import os
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from pyfastcdc import FastCDC

from branchline.adapters.folder_packs import named
from branchline.errors import UnsafeArtifact

SHORTEST, LONGEST = 32 << 10, 256 << 10
BLOCK, AHEAD, HANDS = 4 << 20, 4, 2
_SMALL = 256 << 10  # up to here another thread is not worth its beginning
# O_NOFOLLOW and O_NONBLOCK: between looking and opening it may have become a link or a pipe.
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
Cut = tuple[int, int, int]  # of which file, from where to where in the block
Chunk = tuple[int, bytes, memoryview]


def chunks(paths: Iterable[str]) -> Iterator[list[Chunk]]:
    """Read files one after another; yields, some megabytes at a time, of which file (from 0), digest and content.

    The content is there until the next list is asked for. Raises UnsafeArtifact for what is no plain file.
    """
    spare: list[memoryview] = []
    waiting: deque[tuple[memoryview, list[Cut], Callable[[], list[bytes]]]] = deque()
    with ThreadPoolExecutor(HANDS) as pool:
        for block, cuts in _blocks(paths, spare):
            task = partial(_digests, block, cuts)
            small = not cuts or cuts[-1][2] <= _SMALL
            waiting.append((block, cuts, task if small else pool.submit(task).result))
            if len(waiting) == AHEAD:
                yield _chunks(*waiting[0])
                spare.append(waiting.popleft()[0])
        while waiting:
            yield _chunks(*waiting.popleft())


def _chunks(block: memoryview, cuts: list[Cut], digests: Callable[[], list[bytes]]) -> list[Chunk]:
    return [(which, digest, block[begin:end]) for (which, begin, end), digest in zip(cuts, digests(), strict=True)]


def _digests(block: memoryview, cuts: list[Cut]) -> list[bytes]:
    return [named(block[begin:end]) for _, begin, end in cuts]


def _blocks(paths: Iterable[str], spare: list[memoryview]) -> Iterator[tuple[memoryview, list[Cut]]]:
    """Blocks with what is cut in them; small files share one, and what is not cut yet is taken along to the next."""
    cutter = FastCDC(SHORTEST, min_size=SHORTEST, max_size=LONGEST, normalized_chunking=1)
    block, used, cuts = _block(spare), 0, list[Cut]()
    for which, path in enumerate(paths):
        begin, descriptor = used, _opened(path)
        try:
            while True:
                if used == BLOCK:
                    ends = _ends(cutter, block[begin:used], last=False)
                    cuts += _spans(which, begin, ends)
                    begin += ends[-1] if ends else 0
                    rest = bytes(block[begin:used])
                    yield block, cuts
                    block, begin, used, cuts = _block(spare), 0, len(rest), []
                    block[:used] = rest
                got = os.readv(descriptor, [block[used:]])
                if not got:
                    break
                used += got
        finally:
            os.close(descriptor)
        cuts += _spans(which, begin, _ends(cutter, block[begin:used], last=True))
    yield block, cuts


def _ends(cutter: FastCDC, content: memoryview, last: bool) -> list[int]:
    """Where chunks end; the rest of a content that goes on is not cut, for what follows might say otherwise."""
    ends: list[int] = []
    end, length = 0, len(content)
    if last and 0 < length <= SHORTEST:
        return [length]
    if last or length >= LONGEST:
        for chunk in cutter.cut_buf(content):
            end += chunk.length
            ends.append(end)
            if not last and length - end < LONGEST:
                break
    return ends


def _spans(which: int, begin: int, ends: list[int]) -> Iterator[Cut]:
    start = begin
    for end in ends:
        yield which, start, begin + end
        start = begin + end


def _block(spare: list[memoryview]) -> memoryview:
    return spare.pop() if spare else memoryview(mmap.mmap(-1, BLOCK))


def _opened(path: str) -> int:
    descriptor = os.open(path, _FLAGS)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UnsafeArtifact("it is no plain file", path=path)
    return descriptor
