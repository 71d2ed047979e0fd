# Two commands on a fresh machine:  make demo   make test
# PYTHON=python3.13 chooses the interpreter, VENV=… the environment, EXTRAS=… the optional packages of setup.py,
# PYTEST="-m 'not slow'" what is tested.
PYTHON ?= python3
VENV ?= .venv
EXTRAS ?= demo,dev
PYTEST ?=
BIN := $(VENV)/bin

.PHONY: demo test install check lint clean

demo: install
	$(BIN)/ser-jax demo --out demo

test: install
	$(BIN)/python -m pytest $(PYTEST)

lint: install
	$(BIN)/ruff check .

install: check $(VENV)/installed-$(subst $(eval ) ,,$(subst $(,),-,$(EXTRAS)))

check:
	@for tool in git $(PYTHON); do command -v $$tool >/dev/null || { echo "missing: $$tool"; exit 1; }; done
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "missing: Python >= 3.11 (PYTHON=$(PYTHON) is $$($(PYTHON) --version 2>&1))"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "missing: the venv module of $(PYTHON) (Debian: python3-venv)"; exit 1; }

$(VENV)/installed-%: setup.py pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@device=$$(sh launch/jax_build.sh); echo "install: jax for $$device"; \
	 case $$device in cuda) jax="jax[cuda13]" ;; tpu) jax="jax[tpu]" ;; *) jax=jax ;; esac; \
	 $(BIN)/python -m pip install --quiet --disable-pip-version-check "$$jax>=0.10,<0.13" -e ".[$(EXTRAS)]"
	touch $@

clean:
	rm -rf $(VENV) demo build *.egg-info
