"""The process that reads an .apr file: ``python -m napari_aprcnn.apr.reading_child FOLDER``."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

from napari_aprcnn.apr.children import limit_resources, save_result
from napari_aprcnn.apr.hdf5_parse import describe, parse
from napari_aprcnn.errors import FileFormatError

__all__ = ["main"]


def main(folder: Path) -> None:
    """Do the job in `folder`: read one image, or list all of them."""
    # Loaded before the limit, which counts from what is in use.
    import h5py  # noqa: F401
    import hdf5plugin  # noqa: F401

    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    path, memory_bytes = Path(job["path"]), int(job["memory_bytes"])
    limit_resources(memory_bytes)
    try:
        if job["task"] == "list":
            save_result(folder, {"images": describe(path)})
            return
        parsed = parse(path, group=job["group"], name=job["name"], most_bytes=memory_bytes // 2)
        fields = {field.name: getattr(parsed, field.name) for field in dataclasses.fields(parsed)}
        arrays = {key: fields.pop(key) for key in ("x", "offsets", "node_x", "node_offsets", "intensities")}
        save_result(folder, fields, {key: array for key, array in arrays.items() if array is not None})
    except FileFormatError as error:
        save_result(folder, {"error": str(error)})
    except MemoryError:
        save_result(
            folder, {"error": "reading it takes more memory than allowed; raise the limit if it is to be trusted"}
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
