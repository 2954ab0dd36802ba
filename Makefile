PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
RUN := runs/vae-digits
export OMP_NUM_THREADS ?= 2

.PHONY: setup run test test-slow test-compiled test-arviz1 lint format types docs bench bench-compile bench-gan-step bench-implicit bench-implicit-images bench-cyclegan bench-adversarial bench-attribute-arithmetic bench-joint-vae bench-evaluation bench-imputation bench-semi-supervised bench-outliers bench-annealed-importance bench-importance-weighted bench-disentangling bench-control bench-step-time bench-fashion-mnist-vae bench-topics bench-autoregressive data clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

run: setup
	$(BIN)/pyrogen train vae --data digits --latent 16 --hidden "[256,256]" --epochs 100 --patience 5 --out $(RUN) --overwrite
	$(BIN)/pyrogen evaluate $(RUN) --num-particles 500
	$(BIN)/pyrogen report $(RUN)

test: setup
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist worksteal

test-slow: setup
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist worksteal -m "slow and not compiled"

test-compiled: setup
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist worksteal -m compiled --timeout 600
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist worksteal --compiled -m "not compiled" --timeout 900 tests/test_truth_*.py

test-arviz1:
	@python312=$$(command -v python3.12 || command -v python3.13) && "$$python312" -c "" 2>/dev/null || python312=; \
	for found in "$$HOME"/.pyenv/versions/3.1[23].*/bin/python; do \
	  if [ -z "$$python312" ] && [ -x "$$found" ]; then python312=$$found; fi; \
	done; \
	if [ -z "$$python312" ]; then echo "test-arviz1: skipped, there is no Python 3.12 or newer"; exit 0; fi; \
	"$$python312" -m venv .venv-arviz1 && \
	.venv-arviz1/bin/pip install --quiet "arviz>=1" h5netcdf h5py pytest && \
	PYTHONPATH=. .venv-arviz1/bin/python -m pytest --noconftest -c /dev/null --rootdir . -q tests/test_inferencedata.py tests/test_truth_comparison.py

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: setup
	$(BIN)/mypy

docs: setup
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[docs]"
	$(BIN)/sphinx-build --fail-on-warning --quiet docs docs/_build

bench: bench-autoregressive bench-topics bench-compile bench-gan-step bench-implicit bench-implicit-images bench-cyclegan bench-adversarial bench-attribute-arithmetic bench-joint-vae bench-evaluation bench-step-time bench-fashion-mnist-vae bench-planning bench-control

bench-compile: setup
	$(BIN)/pip install --quiet --constraint constraints.txt lda
	$(BIN)/python benchmarks/compile.py

bench-gan-step: setup
	$(BIN)/python benchmarks/gan_step.py

bench-implicit: setup
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/implicit.py --settings "non-saturating + R1, longer" "non-saturating" --seeds 10
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/implicit.py

bench-implicit-images: data
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/implicit_images.py

bench-cyclegan: setup
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/cyclegan.py

bench-adversarial: data
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/eight_schools.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/four_points.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/hybrids.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/distribution_matching.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/aae.py

bench-topics: data
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/pip install --quiet scikit-learn gensim lda tomotopy
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/topics.py --peers .venv-peers/bin/python --growth --joints

bench-autoregressive: data
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/autoregressive_likelihood.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/text.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/autoregressive_sampling.py

bench-attribute-arithmetic: setup
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/attribute_arithmetic.py

bench-joint-vae: setup
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/joint_vae.py

bench-evaluation: bench-imputation bench-semi-supervised bench-outliers bench-annealed-importance bench-importance-weighted bench-disentangling

bench-imputation: setup
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/imputation.py

bench-semi-supervised: data
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/semi_supervised.py

bench-outliers: data
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/outliers.py

bench-annealed-importance: data
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/annealed_importance.py

bench-importance-weighted: data
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/importance_weighted.py

bench-disentangling: setup
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/disentangling.py

bench-control: setup
	$(BIN)/pip install --quiet --constraint constraints.txt "gymnasium[box2d]"
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/control.py

bench-step-time: setup
	$(BIN)/python benchmarks/step_time.py

bench-fashion-mnist-vae: data
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/fashion_mnist_vae.py

bench-planning: setup
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/planning.py

data: setup
	$(BIN)/python -m pyrogen.data.fetch

clean:
	rm -rf $(VENV) runs build docs/_build .pytest_cache .mypy_cache .ruff_cache
