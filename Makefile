# Two commands on a fresh machine:  make demo   make test
# PYTHON=python3.13 chooses the interpreter, VENV=… the environment, EXTRAS=… the optional packages of setup.py,
# PYTEST="-m 'not slow'" what is tested, WORKERS=0 in one process instead of one for each core.
PYTHON ?= python3
VENV ?= .venv
EXTRAS ?= demo,dev
PYTEST ?=
WORKERS ?= auto

BIN := $(VENV)/bin
comma := ,
STAMP := $(VENV)/installed-$(subst $(comma),-,$(EXTRAS))

.PHONY: demo test lint install check clean

demo: install
	GLIBC_TUNABLES=glibc.malloc.hugetlb=1 $(BIN)/ser-jax demo --out demo

test: install
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(PYTEST)

lint: install
	$(BIN)/ruff check .

install: check $(STAMP)

check:
	@missing=""; \
	command -v git >/dev/null || missing="$$missing git"; \
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || missing="$$missing Python>=3.11(PYTHON=$(PYTHON))"; \
	$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || missing="$$missing venv(Debian:python3-venv)"; \
	test -z "$$missing" || { echo "missing:$$missing"; exit 1; }

$(STAMP): setup.py pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@build=$$(sh launch/jax_build.sh); echo "installing into $(VENV): jax for $$build, extras $(EXTRAS)"; \
	case $$build in cuda) jax="jax[cuda13]" ;; tpu) jax="jax[tpu]" ;; *) jax="jax" ;; esac; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$jax>=0.10,<0.13" -e ".[$(EXTRAS)]"
	@touch $(STAMP)

clean:
	rm -rf $(VENV) demo build *.egg-info
