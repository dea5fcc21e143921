"""A child process that does what ``job.json`` says under ``behaviour``."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from napari_aprcnn.apr.children import limit_resources, save_result


def main(folder: Path) -> None:
    job = json.loads((folder / "job.json").read_text())
    result = folder / "result.json"
    good = {"answer": {}, "arrays": {"x": ["<u2", 3]}}
    match job.get("behaviour", os.environ.get("BEHAVIOUR")):
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "exit":
            sys.stderr.write("first line\nlast words\n")
            os._exit(3)
        case "raise":
            raise RuntimeError("of no expected kind")
        case "hang":
            time.sleep(600)
        case "eat":
            eaten = []
            while True:
                eaten.append(np.ones(4 << 20))
                time.sleep(0.01)
        case "eat limited":
            limit_resources(200 << 20)
            try:
                np.ones(1 << 30)
            except MemoryError:
                save_result(folder, {"error": "no memory"})
        case "flood":
            limit_resources(1 << 20)
            (folder / "x.raw").write_bytes(bytes(4 << 20))
        case "nothing":
            pass
        case "no json":
            result.write_text("{")
        case "deep json":
            result.write_text("[" * 100_000)
        case "other json":
            result.write_text("[]")
        case "too long":
            result.write_bytes(b" " * (20 << 20))
        case "pickle":
            result.write_text(json.dumps(good | {"arrays": {"x": ["|O", 3]}}))
        case "path":
            result.write_text(json.dumps(good | {"arrays": {"../x": ["<u2", 3]}}))
        case "short":
            (folder / "x.raw").write_bytes(b"12")
            result.write_text(json.dumps(good))
        case "huge":
            (folder / "x.raw").write_bytes(b"123456")
            result.write_text(json.dumps(good | {"arrays": {"x": ["<u2", 2**60]}}))
        case "negative":
            (folder / "x.raw").write_bytes(b"123456")
            result.write_text(json.dumps(good | {"arrays": {"x": ["<u2", -1]}}))
        case "empty answer":
            save_result(folder, {})
        case "wrong shape":
            arrays = {"x": np.zeros(3, np.uint16), "offsets": np.zeros(3, np.int64)}
            save_result(folder, {"shape": [10**9, 10**9, 10**9], "conversion": {}}, arrays)
        case "good":
            save_result(folder, {"a": 1}, {"x": np.arange(3, dtype=">u2")})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
