# `make demo` and `make test` work on a fresh machine with Python 3.11 or newer and nothing else.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint clean

.venv/base: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

.venv/test: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@ .venv/base

# The samples, searched in words, in Chinese and by example, across kinds; the index stays in .demo.
demo: export ANYSEEK_INDEX := .demo/index.db
demo: .venv/base
	$(BIN)/anyseek index data/samples/photos data/samples/sounds data/samples/texts
	$(BIN)/anyseek search "a kitten playing with a ball of wool" -k 3
	$(BIN)/anyseek search "musicians playing together" -k 3
	$(BIN)/anyseek search "how do I bake bread" -k 3
	$(BIN)/anyseek search "雪山" -k 3 --in image
	$(BIN)/anyseek search "怎样泡绿茶" -k 3
	$(BIN)/anyseek search "castle" -k 2 --in image --explain-dir .demo/maps
	$(BIN)/anyseek search ./data/samples/photos/german-shepherd.jpg + "2:snow" -k 2 --in image
	$(BIN)/anyseek search "snow OR desert" -k 3 --in image
	$(BIN)/anyseek search "a large animal" -k 3 --in image
	$(BIN)/anyseek search "a large animal" --like 2 --unlike 1 -k 3 --in image
	$(BIN)/anyseek concept add --force farm data/samples/photos/grazing-cow.jpg data/samples/photos/four-hens.jpg
	$(BIN)/anyseek search "<farm>" -k 3 --in audio
	$(BIN)/anyseek search "xkqzw vvbn" -k 1
	$(BIN)/anyseek similar data/samples/photos/dutch-windmills.webp -k 3
	$(BIN)/anyseek search "thunder" -k 3 --in audio
	$(BIN)/anyseek search "a horse neighing" -k 3 --in audio
	$(BIN)/anyseek search "cow" -k 2 --in each
	$(BIN)/anyseek similar data/samples/photos/german-shepherd.jpg -k 3 --in audio
	$(BIN)/anyseek similar data/samples/sounds/sheep-bleating.wav -k 3 --in image
	$(BIN)/anyseek classify data/samples/photos/kitten-with-wool.jpg data/samples/sounds/thunder.ogg \
		--labels cat,thunder,castle
	$(BIN)/anyseek groups -n 4
	$(BIN)/anyseek duplicates
	$(BIN)/anyseek evaluate data/samples -k 1
	$(BIN)/anyseek check
	$(BIN)/anyseek status

lint: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest

clean:
	rm -rf .venv .demo .mypy_cache .pytest_cache .ruff_cache .hypothesis
