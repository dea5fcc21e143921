#!/bin/sh
# Make an environment with cellpose 3.1.1, the peer that our masks and networks are compared with.
# It cannot live in ours: cellpose 3.1.1 needs numpy < 2.1.
#   benchmarks/peer_environment.sh [FOLDER]      (default: build/peer)
set -eu
folder="${1:-build/peer}"
python="${PYTHON:-python3}"
here="$(cd "$(dirname "$0")/.." && pwd)"

[ -x "$folder/bin/python" ] || "$python" -m venv "$folder"
# The same constraints as ours, so that torch is the same build; numpy is left to cellpose.
constraints="$folder/constraints.txt"
grep -i '^torch' "$here/constraints.txt" > "$constraints" || true
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check -c "$constraints" 'cellpose==3.1.1' 'numpy<2.1'
"$folder/bin/python" -c 'import importlib.metadata as m; print("cellpose", m.version("cellpose"), "torch", m.version("torch"))'
echo "peer: $(cd "$folder" && pwd)/bin/python"
