"""Make tests/data/conversion_pyapr.npz: small simulated images and what pyapr 1.0.7 makes of them.

    build/pyapr/bin/python benchmarks/make_conversion_vectors.py tests/data/conversion_pyapr.npz

Runs with the peer's Python (benchmarks/pyapr_environment.sh); needs numpy and pyapr only.
"""

import json
import sys

import numpy as np
import pyapr

AUTO = {"auto_parameters": True}
GIVEN = {"auto_parameters": False, "Ip_th": 115.0, "sigma_th": 60.0, "grad_th": 8.0}
CASES = {
    "volume_auto": ((27, 34, 31), np.uint16, AUTO),
    "volume_given": ((22, 25, 40), np.uint16, {**GIVEN, "rel_error": 0.2}),
    "volume_unsmoothed": ((20, 21, 22), np.uint16, {**GIVEN, "gradient_smoothing": 0.0}),
    "volume_stronger": ((20, 29, 22), np.uint16, {**GIVEN, "gradient_smoothing": 1.0, "psfx": 4.0}),
    "volume_stretched": ((18, 30, 33), np.uint16, {**GIVEN, "dz": 2.5, "dx": 0.5, "dy": 0.5}),
    "volume_float": ((19, 26, 23), np.float32, AUTO),
    "volume_no_optimisation": ((24, 20, 17), np.uint16, {**GIVEN, "neighborhood_optimization": False}),
    "plane_auto": ((70, 83), np.uint8, AUTO),
    "plane_given": ((65, 40), np.uint16, {**GIVEN, "sigma_th_max": 30.0}),
    "thin": ((2, 37, 3), np.uint16, GIVEN),
}


def balls(shape, seed):
    random = np.random.default_rng(seed)
    image = np.full(shape, 100.0)
    at = np.ogrid[tuple(slice(n) for n in shape)]
    for _ in range(5):
        centre, radius = [random.uniform(0, n) for n in shape], random.uniform(3, 7)
        distance = np.sqrt(sum((a - c) ** 2 for a, c in zip(at, centre)))  # noqa: B905 - the peer may be Python 3.9
        image += random.uniform(50, 600) / (1 + np.exp((distance - radius) * 1.5))
    return image + random.normal(size=shape) * np.sqrt(image) * 0.5


def main(path):
    out = {}
    for seed, (name, (shape, dtype, parameters)) in enumerate(CASES.items()):
        image = balls(shape, seed)
        image = np.clip(image / 4 if dtype == np.uint8 else image, 0, np.inf).astype(dtype)
        chosen = pyapr.APRParameters()
        for key, value in parameters.items():
            setattr(chosen, key, value)
        apr, values = pyapr.converter.get_apr(image, params=chosen)
        out[f"{name}/image"] = image
        out[f"{name}/levels"] = np.array(pyapr.reconstruction.reconstruct_level(apr), np.uint8)
        out[f"{name}/values"] = np.array(values)
        out[f"{name}/parameters"] = json.dumps(parameters)
    np.savez_compressed(path, **out)


if __name__ == "__main__":
    main(sys.argv[1])
