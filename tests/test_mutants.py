"""Check that every fault of tests/faults still applies, so that the list cannot rot; tests/mutants.py runs them."""

import pytest
from mutants import ROOT, read_faults


@pytest.mark.parametrize("fault", read_faults(), ids=lambda fault: f"{fault.number}-{fault.room}")
def test_the_fault_applies_and_names_tests_that_are_there(fault):
    text = fault.planted(ROOT)
    assert (
        text is not None
    ), f"{fault.file}: not once '{fault.old}'; correct tests/faults/{fault.room}.txt: {fault.says}"
    assert fault.new != fault.old and fault.tests
    compile(text, fault.file, "exec")  # a fault that is no Python shows nothing
    for test in fault.tests:
        path, _, name = test.partition("::")
        assert (ROOT / path).exists(), f"{fault.says}: there is no {path}"
        if name:
            source = (ROOT / path).read_text(encoding="utf-8")
            assert f"def {name.partition('[')[0]}(" in source, f"{fault.says}: {path} has no {name}"
