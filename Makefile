# Two commands do everything: `make book` and `make test`. Both install into .venv first, once.
# `make check` is what a commit should pass: two minutes.
PYTHON ?= python3
PYTEST = .venv/bin/python -m pytest
CHAPTERS = $(sort $(wildcard notebooks/[0-9]*.ipynb))
# As many processes as cores, each with one thread: networks this small gain little from a second one, and numbers do
# not depend on how many cores there are. tools/side_by_side.py does the same for what papermill runs.
ONE_THREAD = OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
WORKERS =  # notebooks, or groups of tests, at once; without a number, as many as cores
SIDE_BY_SIDE = $(ONE_THREAD) $(PYTEST) -n $(or $(strip $(WORKERS)),logical)
AT_ONCE = $(if $(strip $(WORKERS)),--workers $(WORKERS))

.PHONY: setup book test check lint fast unit notebooks smoke colab colab-some chapters-then-browser unit-then-colab oldest rehearse stress pages browser live js pdf links numbers studies solutions bench bench-gpu \
	bench-toy tidy update audit mutants coverage clean

setup: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "vpkit needs Python 3.11 or newer, this is " + sys.version.split()[0] + ": make PYTHON=python3.11 ..."'
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[book,test]'
	@touch $@

book: setup  ## run every chapter afresh, then build the HTML from those outputs
	.venv/bin/python tools/build_book.py $(AT_ONCE)

test: lint  ## everything; builders of HTML and what waits for processes leave cores idle, so two chains share them
	$(MAKE) --no-print-directory -j2 $(if $(filter output-sync,$(.FEATURES)),-O) chapters-then-browser unit-then-colab

chapters-then-browser: notebooks
	$(MAKE) --no-print-directory browser

unit-then-colab: unit
	$(MAKE) --no-print-directory smoke
	$(MAKE) --no-print-directory colab-some  # compares with what smoke has left
	$(MAKE) --no-print-directory bench-toy

check: setup lint fast  ## before every commit: lint, types and the tests that are not marked slow

lint: setup  ## what .pre-commit-config.yaml lists, over all files: format, types, spelling, notebooks, the workflow
	.venv/bin/pre-commit run --all-files

fast: setup
	$(SIDE_BY_SIDE) --dist worksteal tests -m "not slow"

unit: setup
	$(SIDE_BY_SIDE) --dist load --maxschedchunk 1 tests  # one after the other as they are sorted, the slow ones first

notebooks: setup  ## execute the committed chapters at their defaults, offline; marked cells and final numbers are compared
	rm -rf _build/defaults
	PYTHONPATH=$(CURDIR)/tests/integration/offline $(SIDE_BY_SIDE) --dist loadscope --no-loadscope-reorder -p nbval_defaults \
		--nbval-lax --nbval-cell-timeout=600 $(CHAPTERS)
	$(PYTEST) tests/integration/defaults

smoke: setup  ## one papermill run of each chapter on tiny parameters
	.venv/bin/python tools/build_book.py --smoke $(AT_ONCE)

colab: setup  ## each chapter as Colab runs it, the package from a git remote; and the archive and wheel installed
	$(SIDE_BY_SIDE) --dist worksteal tests/integration/colab

colab-some: setup  ## of these the archive, and one chapter each on ImageNet, on CLIP and on a folder
	$(SIDE_BY_SIDE) --dist worksteal tests/integration/colab -k "archive or 02 or 05 or 09"

rehearse: setup  ## a point of every block of the papers' grids, at their architectures, all of it fetched: half an hour
	$(SIDE_BY_SIDE) --dist worksteal tests/integration/test_rehearsal.py tests/integration/test_planted_grids.py \
		tests/integration/test_fetch.py -m "rehearse or not rehearse"

oldest:  ## the quick tests with the oldest torch and torchvision that pyproject.toml allows
	test -x _build/oldest/bin/python || $(PYTHON) -m venv _build/oldest
	_build/oldest/bin/python -m pip install --quiet --disable-pip-version-check torch==2.4.* torchvision==0.19.* \
		-e '.[book,test]'
	$(ONE_THREAD) _build/oldest/bin/python -m pytest -n logical --dist worksteal tests -m "not slow"

stress: setup  ## fifty kills of everything that is interrupted in the tests, and a set of 6 GB; the table is committed
	rm -f results/interruptions.csv
	$(PYTEST) tests/integration/test_interruption.py -k killed --kills 50 --kills-table results/interruptions.csv
	$(PYTEST) tests/datasets/test_memory.py --megabytes 6000

pages: setup  ## the book from the committed outputs, every warning an error
	.venv/bin/jupyter-book build book/ --all -q -W --keep-going --path-output _build/pages

live: setup  ## the models of the page Try it as files that a browser loads, into _build/live; needs npm and five minutes
	.venv/bin/python tools/build_live.py $(AT_ONCE)

js:  ## the tests of that page's modules which need no browser, by node's own runner; `make check` runs them too
	cd live && node --test test/*.test.js

browser: setup  ## the built book in headless Chromium; skipped where there is none
	.venv/bin/python tools/build_live.py --optional $(AT_ONCE)
	$(MAKE) --no-print-directory pages
	$(SIDE_BY_SIDE) --dist loadgroup tests/integration/browser

pdf: setup  ## the whole book as one file to print, _build/vpkit.pdf
	.venv/bin/python tools/print_book.py

links: setup  ## write the address of the git remote into badges, buttons and the chapters' setup cells
	.venv/bin/python tools/links.py

numbers: setup  ## put the numbers that the text takes from stored runs into it; `make check` fails where they differ
	.venv/bin/python tools/bound_numbers.py --write

studies: setup  ## rerun the three-seed studies that the figures read (hours on 2 cores)
	for grid in grids/studies/*.yaml; do .venv/bin/python -m vpkit.book.sweep $$grid --out _build/studies \
		--json vpkit/data/studies/$$(basename $$grid .yaml).json || exit 1; done

solutions: setup  ## run the solutions to the exercises that changed, keep what they print
	.venv/bin/python tools/run_solutions.py $(AT_ONCE)

bench: setup  ## times against the plain way to write the methods, kept in benchmarks/results/
	.venv/bin/python benchmarks/run.py --out benchmarks/results/$(shell date +%F)-cpu.json
	.venv/bin/python benchmarks/cpu_settings.py --out benchmarks/results/$(shell date +%F)-cpu-settings.json

bench-gpu: setup  ## what the targets for a GPU ask for, on a machine that has one
	.venv/bin/python benchmarks/run.py --gpu --out benchmarks/results/$(shell date +%F)-gpu.json

bench-toy: setup  ## the same at toy size: proves that the scripts work, says nothing about speed
	.venv/bin/python benchmarks/run.py --toy
	.venv/bin/python benchmarks/cpu_settings.py --toy
	.venv/bin/python benchmarks/busy.py --toy
	.venv/bin/python benchmarks/serve.py --toy

tidy: setup  ## run every chapter at its defaults and commit-ready store its outputs
	.venv/bin/python tools/build_book.py --store $(AT_ONCE)

update: setup  ## constraints.txt from the newest versions that fit; run the tests before committing it
	rm -rf _build/update && $(PYTHON) -m venv _build/update
	_build/update/bin/python -m pip install --quiet --disable-pip-version-check '.[book,test]'
	_build/update/bin/python -m pip freeze | grep '==' | grep -vi '^vpkit' > constraints.txt
	rm -rf _build/update

audit: setup  ## known weaknesses of the pinned versions; asks the package index
	.venv/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	.venv/bin/python -m pip_audit --requirement constraints.txt --no-deps --disable-pip

mutants: setup  ## 300 small changes to vpkit: how many does a test notice? the table is committed
	test -x _build/mutants/environment/bin/python || $(PYTHON) -m venv _build/mutants/environment
	_build/mutants/environment/bin/python -m pip install --quiet --disable-pip-version-check cosmic-ray==8.7.0
	_build/mutants/environment/bin/python tools/mutants.py

coverage: setup  ## lines and branches of vpkit that the unit tests reach
	$(PYTEST) tests --cov=vpkit --cov-branch --cov-report=term-missing:skip-covered --cov-fail-under=95

clean:
	rm -rf _build book/_build .mypy_cache
