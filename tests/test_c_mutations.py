"""The tests of the C library can fail: bugs planted in its sources are each caught, in every variant and type."""

import pytest
from c_library import BINDINGS, CC, Checker, compile_changed, library, link, units
from c_mutations import MARK, MARKS, MUTATIONS, Mutation, variant_of

from eqkernel.backends import unavailable

if reason := unavailable("c"):
    pytest.skip(f"backend 'c': {reason}", allow_module_level=True)
if CC is None:
    pytest.skip("needs a C compiler", allow_module_level=True)

import test_c_bf16x3
from test_bindings import VARIANTS


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    """The objects of the library as it is, by name."""
    return library(tmp_path_factory)


@pytest.fixture(scope="module")
def marked(objects, tmp_path_factory):
    """The same, where each variant's relaxation tells which it is."""
    changed = {}
    for unit in objects:
        if mark := MARKS.get(variant_of(unit)):
            folder = tmp_path_factory.mktemp("marked")
            changed[unit] = compile_changed(folder, unit, MARK, mark)
    return {**objects, **changed}


@pytest.fixture(scope="module")
def checker():
    """Runs the checks."""
    checker = Checker()
    yield checker
    checker.close()


def has(check):
    return bool(test_c_bf16x3.HERE) or not check.startswith("bf16x3")


def runnable(mutation):
    if not has(mutation.check):
        pytest.skip("this processor has no AVX512-BF16")
    if mutation.variant not in (*VARIANTS, "auto"):
        pytest.skip(f"this processor cannot run {mutation.variant}")


def test_every_bug_has_one_place():
    """Those too that this processor cannot run."""
    sources = [path.read_text() for path in (BINDINGS / "src").glob("*.[ch]")]
    wrong = [m.bug for m in MUTATIONS if sum(source.count(m.old) for source in sources) != 1]
    assert not wrong


def test_every_variant_and_type_has_a_bug():
    assert {m.unit for m in MUTATIONS} >= set(units())


@pytest.mark.parametrize("unit", units())
def test_the_checks_pass_without_a_bug(unit, objects, marked, checker, tmp_path):
    checks = sorted({m.check for m in MUTATIONS if m.unit == unit and has(m.check)})
    for base, chosen in ((marked, {"dispatch"}), (objects, {*checks} - {"dispatch"})):
        mutation = Mutation("none", "", "", "+".join(c for c in checks if c in chosen), unit)
        runnable(mutation)
        if mutation.check:
            made = link(tmp_path / "library.so", base)
            assert checker.outcome(made, mutation.check, mutation.variant, mutation.dtype) == "survived"


# `make test` plants one bug in three, to stay under ten minutes; `make check-planted`, and every change, all of them.
SAMPLED = [pytest.param(m, id=m.bug, marks=[pytest.mark.exhaustive] if i % 3 else []) for i, m in enumerate(MUTATIONS)]


@pytest.mark.parametrize("mutation", SAMPLED)
def test_planted_in_the_library(mutation, objects, marked, checker, tmp_path):
    runnable(mutation)
    changed = compile_changed(tmp_path, mutation.unit, mutation.old, mutation.new)
    base = marked if mutation.check == "dispatch" else objects
    made = link(tmp_path / "library.so", {**base, mutation.unit: changed})
    assert checker.outcome(made, mutation.check, mutation.variant, mutation.dtype) in ("caught", "crashed")
