#!/bin/bash
# Builds the kernels as other systems would and runs their tests here; Debian 12 or its kin, as root, after `make setup`.
#
#   tools/portable.sh [clang] [arrays] [arm64] [windows]
#
#   clang    with clang and libc++, as on macOS
#   arrays   without compiler vectors, as MSVC builds them
#   arm64    for 64-bit ARM, its instructions emulated: says whether results are right, nothing about speed
#   windows  with the headers of mingw; compiled only, without the bindings
set -euo pipefail
cd "$(dirname "$0")/.."
OUT=$PWD/build/portable
PYTHON=$PWD/.venv/bin/python
CPU=src/napari_aprcnn/_kernels/cpu
TESTS=(tests/_kernels/test_masks.py tests/_kernels/test_heat.py tests/_kernels/test_conversion.py tests/models/test_fused.py
    tests/models/test_filtered_planes.py tests/nn/test_twins.py tests/nn/test_in_place.py tests/nn/test_norms.py
    tests/nn/test_half_features.py)
# The extension that is installed for editing would be found first.
RUN='import sys
sys.meta_path[:] = [f for f in sys.meta_path if "Redirecting" not in type(f).__name__]
sys.path[:0] = sys.argv.pop(1).split(":")
import napari_aprcnn._kernels.dispatch as dispatch, pytest
print(dispatch.extension().__file__, dispatch.instruction_sets())
sys.exit(pytest.main(sys.argv[1:]))'

need() { # packages of the system
    local missing=() package
    for package in "$@"; do dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package"); done
    [ ${#missing[@]} = 0 ] || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >/dev/null; }
}

build() { # name, CMake options
    "$PYTHON" -m pip install --quiet nanobind cmake ninja
    PATH="$(dirname "$PYTHON"):$PATH" cmake -G Ninja -S . -B "$OUT/$1/build" -DPython_EXECUTABLE="$PYTHON" -DCMAKE_BUILD_TYPE=Release "${@:2}" >/dev/null
    PATH="$(dirname "$PYTHON"):$PATH" ninja -C "$OUT/$1/build" -k 0
    rm -rf "$OUT/$1/package"
    mkdir -p "$OUT/$1/package"
    cp -r src/napari_aprcnn "$OUT/$1/package/"
    cp "$OUT/$1"/build/_cpu*.so "$OUT/$1/package/napari_aprcnn/_kernels/_cpu.so"
}

check() { # paths to import from, then the interpreter
    "${@:2}" -c "$RUN" "$1" "${TESTS[@]}" -q -o addopts=--strict-markers -p no:cacheprovider -m "not gui"
}

clang() { # CLANG=-19: that version
    local version=${CLANG:-}
    need "clang$version" "libc++$version-dev" "libc++abi$version-dev"
    build clang -DCMAKE_CXX_COMPILER="clang++$version" \
        -DCMAKE_CXX_FLAGS="-stdlib=libc++ -static-libstdc++ -Wno-unused-command-line-argument"
    check "$OUT/clang/package" "$PYTHON"
}

arrays() {
    build arrays -DAPRCNN_PLAIN_ARRAYS=ON
    check "$OUT/arrays/package" "$PYTHON"
}

arm64() {
    need qemu-user-static debootstrap g++-aarch64-linux-gnu
    local here=$OUT/arm64 root=$OUT/arm64/root
    mkdir -p "$here"
    if [ ! -x "$root/usr/bin/python3.11" ]; then
        debootstrap --arch=arm64 --foreign --variant=minbase --include=python3,libpython3-dev,libstdc++6 bookworm "$root" >/dev/null
        for package in "$root"/var/cache/apt/archives/*.deb; do dpkg-deb -x "$package" "$root"; done
        mkdir -p "$here/include/aarch64-linux-gnu"
        ln -sfn "$root/usr/include/python3.11" "$here/include/python3.11"
        ln -sfn "$root/usr/include/aarch64-linux-gnu/python3.11" "$here/include/aarch64-linux-gnu/python3.11"
    fi
    if [ ! -d "$here/site/torch" ]; then
        # Later wheels of torch for Linux on ARM want CUDA's libraries.
        local platforms=()
        for tag in 2_28 2_27 2_26 2_17; do platforms+=(--platform "manylinux_${tag}_aarch64"); done
        "$PYTHON" -m pip install --quiet --target "$here/site" --only-binary :all: --python-version 3.11 "${platforms[@]}" \
            --platform manylinux2014_aarch64 "torch==2.10.0" numpy scipy scikit-image pydantic tifffile safetensors psutil \
            platformdirs networkx rich "connected-components-3d" pytest hypothesis
    fi
    build arm64 -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ \
        -DPython_INCLUDE_DIR="$here/include/python3.11" -DCMAKE_CXX_FLAGS="-I$here/include"
    export QEMU_CPU=neoverse-n1  # as the M1, it has no SVE
    check "$here/package:$here/site" qemu-aarch64-static -L "$root" "$root/usr/bin/python3.11"
}

windows() {
    need g++-mingw-w64-x86-64-posix
    local file flags
    for file in "$CPU"/*.cpp; do
        case $(basename "$file") in
            bind_* | module.cpp) continue ;; # they want the headers of Python for Windows
            *_avx2.cpp) flags="-mavx2 -mfma" ;;
            *_avx512.cpp) flags="-mavx512f -mavx512dq -mavx512bw -mavx512vl -mfma" ;;
            *) flags="" ;;
        esac
        # shellcheck disable=SC2086 - several flags
        x86_64-w64-mingw32-g++-posix -std=c++17 -fsyntax-only -Wall -Wextra -Wno-psabi -DAPRCNN_X86_VARIANTS $flags "$file"
    done
}

for name in "${@:-clang}"; do
    echo "== $name"
    "$name"
done
