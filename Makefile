# The two commands that always work, on a bare machine too: make demo, make test.
SHELL := /bin/bash
.DEFAULT_GOAL := help
BIN := .venv/bin
# A virtual screen of a laptop's size where there is none.
XVFB := xvfb-run -a -s "-screen 0 1600x1000x24 +extension GLX"
SCREEN := $(if $(DISPLAY)$(WAYLAND_DISPLAY),,$(XVFB))

.PHONY: help setup demo test test-all stress lint train bench verify pictures loop-pictures clean

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup:  ## system libraries, .venv, packages; leaves .venv/bin/cellpath
	@bash scripts/setup.sh

demo: setup  ## click nuclei in napari; without a display, screenshots and results in demo-output/
	$(BIN)/cellpath demo --out demo-output $(if $(DISPLAY)$(WAYLAND_DISPLAY),,--headless)

# What looks at no clock runs side by side, one thread each; windows and the backend then alone.
APART := core models slides samples systems project bridge training cli
QUICK := -m "not slow and not gpu" --durations=10

test: setup lint  ## everything but the slow tests
	OMP_NUM_THREADS=1 $(SCREEN) $(BIN)/python -m pytest $(QUICK) -n logical --maxprocesses 4 \
	    --dist loadfile $(APART:%=tests/%)
	$(SCREEN) $(BIN)/python -m pytest $(QUICK) $(APART:%=--ignore=tests/%)

test-all: setup lint  ## the slow ones too
	$(SCREEN) $(BIN)/python -m pytest -m "not gpu"

stress: setup  ## 500 kill -9 (annotating, saving, exporting, training) and 1000 random undo sequences
	CELLPATH_KILLS=125 CELLPATH_SEQUENCES=1000 $(SCREEN) $(BIN)/python -m pytest --timeout=7200 \
	    tests/project/test_kill.py tests/training/test_training_kill.py tests/project/test_undo.py

lint: setup  ## ruff, mypy, the rooms' import contracts, the manifest
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/npe2 validate napari-cellpath

train: setup  ## the starter weights again, from the data in CELLPATH_DATA or ../shared/data
	$(BIN)/cellpath train deeppap training/recipes/deeppap-herlev.yaml --out runs/deeppap-herlev
	$(BIN)/cellpath train rbc training/recipes/rbc-chula.yaml --out runs/rbc-chula
	$(BIN)/cellpath train hspnet training/recipes/hspnet-glas-colon.yaml --out runs/hspnet-glas-colon
	$(BIN)/cellpath train hep2 training/recipes/hep2-i3a.yaml --out runs/hep2-i3a

bench: setup  ## speed: views, clicks, training, start; the table is docs/benchmarks.md
	$(SCREEN) $(BIN)/python -m benchmarks

verify: setup  ## adaptive and bf16 against 1000 fp32 inputs, on cells of slides the models never saw
	@test -f runs/deeppap-herlev/fold-0.json || $(BIN)/cellpath train deeppap \
	    training/recipes/deeppap-herlev.yaml --out runs/deeppap-herlev
	$(BIN)/python -m benchmarks.verify --run runs/deeppap-herlev

pictures: setup  ## the pictures of README and docs, from generated cells
	$(BIN)/cellpath demo --generated --headless --cells 24 --out demo-output/pictures
	mkdir -p docs/images && cp demo-output/pictures/scored-nuclei.png docs/images/nuclei-dock.png
	cp demo-output/pictures/found-nuclei.png demo-output/pictures/show-why.png docs/images/
	cp demo-output/pictures/hep2-patterns.png docs/images/hep2-dock.png
	cp demo-output/pictures/tissue.png docs/images/tissue-dock.png
	$(SCREEN) $(BIN)/python scripts/rbc_pictures.py docs/images demo-output/pictures/red-cells.png

loop-pictures: setup  ## the pictures of docs/loop.md: correct, review, retrain, trust
	$(SCREEN) $(BIN)/python scripts/loop_pictures.py docs/images

clean:  ## everything that make made
	rm -rf .venv demo-output .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
