#!/bin/sh
# Make an environment with pyapr 1.0.7, the peer that our conversion is compared with. It needs Python 3.11 or older.
#   benchmarks/pyapr_environment.sh [FOLDER]      (default: build/pyapr)
set -eu
folder="${1:-build/pyapr}"
python="${PYTHON:-python3}"

[ -x "$folder/bin/python" ] || "$python" -m venv "$folder"
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check 'pyapr==1.0.7' h5py hdf5plugin
"$folder/bin/python" -c 'import pyapr; print("pyapr", pyapr.__version__)'
echo "peer: $(cd "$folder" && pwd)/bin/python"
