"""GPU kernels compiled without a GPU. A representative part: the layer 16 -> 16, 3x3x3 of the APR U-Net with all its
gradients, its first layer, one wide layer, and one kernel of each family; `benchmarks/triton_report.py` compiles all.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton", reason="triton is for Linux", exc_type=ImportError)

from napari_aprcnn._kernels.triton.aot import TARGETS, Specimen, compile_specimen, specimens

NVIDIA = ("sm_80", "sm_90")
#: Compiled for both.
PRODUCTS = [
    "forward 16->16 3x3x3 fp16",
    "forward 16->16 3x3x3 tf32",
    "grad x fine 16->16 3x3x3 fp16",
    "grad weight 16->16 3x3x3 fp16",
    "grad weight 64->64 3x3x3 tf32",
    "forward 64->64 3x3x3 fp16",
]
#: Compiled for sm_80 only.
OTHERS = [
    "grad x 16->16 3x3x3 fp16",
    "forward 16->16 3x3x3 fp32",
    "grad weight 16->16 3x3x3 bf16",
    "forward 1->16 3x3x3 fp16",
    "grad x fine 1->16 3x3x3 fp16",
    "grad x fine 48->16 3x3x3 fp32",
    "mean_of_children C=16 fp32",
    "max_of_children C=16 fp16",
    "voxels_to_partials C=16 fp32",
    "reduce_partials",
]
CASES = [*((name, target) for name in PRODUCTS for target in NVIDIA), *((name, "sm_80") for name in OTHERS)]


@pytest.fixture(scope="module")
def known() -> dict[str, Specimen]:
    return {s.name: s for s in specimens()}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Compile now, not some time ago."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


@pytest.mark.parametrize(("name", "target"), CASES)
def test_no_spills_tensor_cores_and_wide_loads(known: dict[str, Specimen], name: str, target: str) -> None:
    compiled = compile_specimen(known[name], target)
    assert compiled.spills == 0
    assert 0 < compiled.registers <= 168
    assert compiled.shared_bytes <= 48 * 1024
    if compiled.specimen.tensor_cores:
        assert any(i.startswith(("HMMA", "HGMMA")) for i in compiled.matrix_instructions)
    if compiled.specimen.wide_loads:
        assert compiled.wide_loads > 0


@pytest.mark.parametrize(
    "name", ["forward 16->16 3x3x3 fp16", "grad weight 64->64 3x3x3 tf32", "max_of_children C=16 fp16"]
)
def test_the_same_kernels_compile_for_amd(known: dict[str, Specimen], name: str) -> None:
    compiled = compile_specimen(known[name], "gfx942")
    assert compiled.spills == 0
    assert compiled.registers > 0
    if compiled.specimen.tensor_cores:
        assert compiled.matrix_instructions


def test_what_should_use_tensor_cores_and_wide_loads_is_told(known: dict[str, Specimen]) -> None:
    assert known["forward 16->16 3x3x3 fp16"].tensor_cores
    assert known["forward 16->16 3x3x3 fp16"].wide_loads
    assert not known["forward 13->21 3x3x3 fp16"].wide_loads
    assert not known["forward 16->16 3x3x3 fp32"].tensor_cores
    assert len(known) == len(list(specimens()))
    assert set(NVIDIA) < set(TARGETS)
