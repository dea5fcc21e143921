# make demo | napari | test | bench   - each sets up what it needs on a fresh machine (Linux, macOS; Python >= 3.11).
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
OUT    := out
export QT_API := pyqt6
# A headless machine gets a virtual screen; software rendering needs no GPU.
DISPLAY_RUN := $(shell [ -n "$$DISPLAY" ] && echo "" || echo "xvfb-run -a -s '-screen 0 1600x1000x24'")
SOURCES := $(wildcard src/napari_aprcnn/_kernels/cpu/*) CMakeLists.txt pyproject.toml constraints.txt

.PHONY: demo napari test check bench setup system docs clean

setup: system $(VENV)/.ready

system:
	@./tools/system_packages.sh

$(VENV)/.ready: $(SOURCES)
	[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,test,train]'
	@touch $@

# The main job on a real image that ships with the package: labels, overlay and readout.
demo: setup
	$(BIN)/aprcnn sample culture -o $(OUT)/demo --overwrite
	$(BIN)/aprcnn segment $(OUT)/demo/culture.tif -o $(OUT)/demo --overlay --csv --overwrite
	@ls $(OUT)/demo

napari: setup
	$(BIN)/napari --with napari-aprcnn Segment

test: setup check
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest tests -m "not gui" -n auto --maxprocesses 4 --dist worksteal
	QT_QPA_PLATFORM=xcb $(DISPLAY_RUN) $(BIN)/python -m pytest tests/_napari -m gui

check: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/npe2 validate napari-aprcnn

bench: setup
	$(BIN)/python -m napari_aprcnn.bench --out $(OUT)/bench

clean:
	rm -rf build $(OUT) $(VENV) .mypy_cache .ruff_cache .pytest_cache
