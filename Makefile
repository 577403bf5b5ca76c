# Each line is a command that a person could type.
BIN := .venv/bin
LOCK := requirements.lock

# Memory that one step frees stays for the next (glibc): a third of a training's time on large images.
export MALLOC_TRIM_THRESHOLD_ ?= 2000000000
export MALLOC_MMAP_THRESHOLD_ ?= 33554432

.PHONY: book pdf test bench data lint lock clean

book: .venv/ready
	@$(BIN)/lossatlas book $(if $(STUDY),--study "$(STUDY)")

# The built book as one PDF, linked from its front page.
pdf: book
	@$(BIN)/python book/pdf.py

test: .venv/ready
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=25

bench: .venv/ready
	$(BIN)/python benchmarks/losses.py --out results/bench
	$(BIN)/python benchmarks/training.py --out results/bench --studies results/begin
	$(BIN)/python benchmarks/workflow.py --out results/bench

data: .venv/ready
	$(BIN)/lossatlas data get camvid

lint: .venv/ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell $$(git ls-files)

# One environment: every version and hash of the lock, the package itself editable. Compiled at once: where Python may not
# write bytecode (PYTHONDONTWRITEBYTECODE, common in containers), every process would compile torch and Snakemake again.
.venv/ready: $(LOCK) pyproject.toml
	@echo "— environment in .venv (about a minute, 7 GB on the first time)"
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"expected Python >= 3.11, got {sys.version.split()[0]}: put a newer python3 first on the PATH")'
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || python3 -m venv --clear .venv
	@$(BIN)/python -m pip install -q --disable-pip-version-check "$$(grep -o '^uv==[0-9.]*' $(LOCK))"
	@$(BIN)/uv pip install -q --compile-bytecode --python $(BIN)/python --require-hashes -r $(LOCK)
	@$(BIN)/uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

# After a change of pyproject.toml's dependencies.
lock:
	$(BIN)/uv pip compile pyproject.toml --universal --generate-hashes --python-version 3.11 --all-extras \
		--no-emit-index-url --no-header -q -o $(LOCK)
	(echo "# Every version with its hashes, made by \`make lock\`."; cat $(LOCK)) > $(LOCK).new && mv $(LOCK).new $(LOCK)

clean:
	rm -rf book/_build book/generated runs .snakemake
