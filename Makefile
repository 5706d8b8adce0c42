# make demo and make test need nothing but python3 (3.11 to 3.13), make and a Linux machine; both set up what they use.
# VENV and PYTHON choose another environment: make test PYTHON=python3.13 VENV=.venv-3.13
# ARGS goes to pytest:                        make test ARGS="tests/ca -x"

PYTHON ?= python3
VENV ?= .venv
bin := $(VENV)/bin
pytest := $(bin)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help demo test test-v2 test-slow soak check generate certs bench lock clean

help: ## say what there is
	@sed -n 's/^\([a-z0-9-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 18

demo: $(VENV)/ready ## run, follow and stop real jobs on a real worker, and say what is seen
	PATH="$(CURDIR)/$(bin):$$PATH" scripts/demo

test: $(VENV)/ready ## all tests that this machine can run, but the slow ones
	$(pytest) -m "not slow" $(ARGS)

# What meets cgroups, and one way through everything; but for what starts processes by the hundred or moves output in
# bulk, since a process start takes 30 times as long in there.
alike := $(addprefix tests/supervisor/test_,cap.py control.py full_disk.py killed.py output.py process.py)
on_v2 := $(filter-out $(alike),$(wildcard tests/supervisor/test_*.py)) tests/stateful/test_tree.py \
    $(addprefix tests/service/test_,get_worker.py run_job.py update_job.py)
heavy := hundred or starve or 64_mib or does_not_read
test-v2: $(VENV)/ready ## the tests that meet cgroups, on a kernel of their own that has nothing but cgroup v2
	scripts/cgroup2-vm $(pytest) --color=no -m "not slow" -k "not ($(heavy))" $(on_v2) $(ARGS)

test-slow: $(VENV)/ready ## the tests that take minutes
	$(pytest) -m slow $(ARGS)

ROUNDS ?= 20
soak: $(VENV)/ready ## load and kills, ROUNDS rounds of them, and what was survived (200 take some six minutes)
	$(bin)/python -m tests.soak --rounds $(ROUNDS) $(ARGS)

check: $(VENV)/ready ## style, types, the API's rules, generated code, import rules
	$(bin)/ruff check
	$(bin)/ruff format --check
	$(bin)/mypy
	PATH="$(CURDIR)/$(bin):$$PATH" scripts/check-api
	$(pytest) --quiet tests/test_layers.py

generate: $(VENV)/ready ## write generated/ from api/
	PATH="$(CURDIR)/$(bin):$$PATH" scripts/generate .

certs: $(VENV)/ready ## an authority, a server and two clients in ca/out
	sh ca/gen.sh

bench: $(VENV)/ready ## measure, beside ssh and asyncssh where they are there, and what limits cost
	$(bin)/python -m bench
	$(bin)/python -m bench.resources

lock: ## choose the newest versions pyproject.toml allows (needs uv)
	uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-config --upgrade --quiet \
	    --group build --group test --group check --group bench --custom-compile-command "make lock" -o requirements.lock

clean: ## remove what make made, except ca/out
	rm -rf .venv .venv-* .demo build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

define right_python
import sys
found = ".".join(map(str, sys.version_info[:2]))
if not (3, 11) <= sys.version_info[:2] <= (3, 13):
    sys.exit(f"error: {sys.executable} is Python {found}\nhint: jobworker runs on 3.11 to 3.13; name one with make PYTHON=python3.12")
endef
export right_python

$(VENV)/ready: requirements.lock pyproject.toml
	@$(PYTHON) -c "$$right_python"
	$(PYTHON) -m venv --clear $(VENV)
	$(bin)/python -m pip install -qq --disable-pip-version-check --require-hashes -r requirements.lock
	$(bin)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation \
	    --config-settings editable_mode=compat --editable . # compat: new packages are seen without a new installation
	touch $@
