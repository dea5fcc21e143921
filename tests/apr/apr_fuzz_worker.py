"""Read mutated copies of a file: ``python apr_fuzz_worker.py SOURCE FIRST LAST FOLDER``.

A process of its own, as HDF5 may crash on a damaged file: the real reader has one around each file. Prints a line when
a copy is begun and when it is done.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

from apr_helpers import parse_and_build

from napari_aprcnn.errors import FileFormatError, ImageError, ParticleTreeError


def mutate(content: bytes, seed: int) -> bytes:
    """Cut, flip, overwrite or swap parts of a file."""
    rng, data = random.Random(seed), bytearray(content)
    kind = seed % 5
    if kind == 0:
        del data[rng.randrange(len(data)) :]
    elif kind == 1:
        for _ in range(rng.randint(1, 6)):
            data[rng.randrange(len(data))] = rng.randrange(256)
    elif kind == 2:  # where the superblock, the groups and the attributes lie
        for _ in range(rng.randint(1, 3)):
            data[rng.randrange(min(len(data), 9000))] ^= 1 << rng.randrange(8)
    elif kind == 3:
        at, length = rng.randrange(len(data) - 64), rng.choice([4, 8, 64])
        data[at : at + length] = rng.choice([b"\xff" * length, b"\0" * length, rng.randbytes(length)])
    else:
        length = rng.choice([8, 24, 256])
        one, other = rng.randrange(len(data) - length), rng.randrange(len(data) - length)
        data[one : one + length] = data[other : other + length]
    return bytes(data)


def main(source: Path, first: int, last: int, folder: Path) -> None:
    content, good = source.read_bytes(), parse_and_build(source)
    for seed in range(first, last):
        path = folder / f"{source.stem}_{seed}.apr"
        path.write_bytes(mutate(content, seed))
        sys.stdout.write(f"{seed} begun\n")
        sys.stdout.flush()
        try:
            tree = parse_and_build(path)
        except (FileFormatError, ParticleTreeError, ImageError):
            outcome = "refused"
        else:
            same = tree.with_intensities(None) == good.with_intensities(None)
            outcome = "same" if tree == good else "values" if same else "structure"
        path.unlink()
        sys.stdout.write(f"{seed} {outcome}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
