"""Convert images in a process of its own, with pyapr or with ours; `compare_conversion.py` starts it.

    PYTHON conversion_worker.py FOLDER pyapr|compatible|strict

FOLDER holds jobs.json: a list of {image, parameters, repeats, keep}. Writes result_<maker>.json: seconds, processor
seconds, particles and added peak memory of each; with keep also <number>_<maker>.npz with `levels` (each voxel's) and
`values`. Needs numpy and what it measures, nothing else.
"""

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np


def with_pyapr(image, parameters):
    import pyapr

    chosen = pyapr.APRParameters()
    for name, value in parameters.items():
        setattr(chosen, name, value)
    apr, values = pyapr.converter.get_apr(image, params=chosen)
    return (lambda: np.array(pyapr.reconstruction.reconstruct_level(apr)), lambda: np.array(values)), (
        apr.total_number_particles()
    )


def level_rows(grid):
    """Rows of the particles of a level grid (level, z, y; x within a row), in plain numpy."""
    starts, offsets, xs = [0], [0], []
    for level in range(grid.level_max + 1):
        shift = grid.level_max - level
        shape = [-(-n // (1 << shift)) for n in grid.shape]
        if level == grid.level_max:
            here = (grid.levels == level).repeat(2, 0).repeat(2, 1).repeat(2, 2)[tuple(slice(n) for n in grid.shape)]
        elif level >= 2:
            here = grid.levels[(slice(None, None, 1 << (shift - 1)),) * 3] == level
        else:
            here = np.zeros(shape, bool)
        rows = here.reshape(-1, shape[2])
        xs.append((np.flatnonzero(rows) % shape[2]).astype(np.uint16))
        offsets.extend((offsets[-1] + np.cumsum(rows.sum(1))).tolist())
        starts.append(starts[-1] + len(rows))
    return np.array(starts, np.int64), np.array(offsets, np.int64), np.concatenate(xs)


def with_ours(mode):
    from napari_aprcnn.apr.convert import level_grid, sample_values
    from napari_aprcnn.config import ConversionConfig

    names = {
        "rel_error": "relative_error",
        "gradient_smoothing": "smoothing",
        "Ip_th": "intensity_threshold",
        "sigma_th": "sigma_threshold",
        "grad_th": "gradient_threshold",
        "auto_parameters": "auto_thresholds",
    }
    known = {}

    def convert(image, parameters):
        config = ConversionConfig(mode=mode, **{names[name]: value for name, value in parameters.items()})
        grid = level_grid(image, config)
        convert.peak = convert.peak or peak_mib()  # of the first call: no rows yet
        # The rows are the tree's business: made once, outside the clock.
        key = (id(image), json.dumps(parameters, sort_keys=True))
        if key not in known:
            before = time.perf_counter(), time.process_time()
            known.clear()
            known[key] = level_rows(grid)
            convert.paused = [time.perf_counter() - before[0], time.process_time() - before[1]]
        values = sample_values(image, *known[key], level_max=grid.level_max, repeated=mode == "compatible")

        def levels():
            out = grid.levels
            for axis in range(3):
                out = out.repeat(2, axis)
            return out[tuple(slice(n) for n in grid.shape)]

        return (levels, lambda: values), grid.particles

    convert.paused, convert.peak = [0.0, 0.0], 0.0
    return convert


def peak_mib():
    try:  # not ru_maxrss, which starts with that of the process that started this one
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def resident_mib():
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
    except OSError:
        return peak_mib()


def main(folder, maker):
    convert = with_pyapr if maker == "pyapr" else with_ours(maker)
    jobs = json.loads((folder / "jobs.json").read_text())
    # Imports, thread pools and the first call of everything are not what is measured.
    convert(np.random.default_rng(0).integers(0, 1000, (40, 40, 40)).astype(np.uint16), {"auto_parameters": True})
    results = []
    for number, job in enumerate(jobs):
        image = np.load(folder / job["image"])
        base, seconds, processor = resident_mib(), [], []
        if maker != "pyapr":
            convert.peak = 0.0
        for _ in range(job["repeats"]):
            if maker != "pyapr":
                convert.paused = [0.0, 0.0]
            start = time.perf_counter(), time.process_time()
            (levels, values), particles = convert(image, job["parameters"])
            paused = [0.0, 0.0] if maker == "pyapr" else convert.paused
            seconds.append(time.perf_counter() - start[0] - paused[0])
            processor.append(time.process_time() - start[1] - paused[1])
        results.append(
            {
                "seconds": min(seconds),
                "processor": min(processor),
                "particles": int(particles),
                # Ours peaks while levels are decided; later there are only levels, values and rows (2 bytes each).
                "added_mib": (peak_mib() if maker == "pyapr" else convert.peak) - base,
            }
        )
        if job["keep"]:
            np.savez(folder / f"{number}_{maker}.npz", levels=levels(), values=values())
    (folder / f"result_{maker}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
