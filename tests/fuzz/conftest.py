import pytest


@pytest.fixture(scope="session")
def fuzz_range(pytestconfig):
    """The seeds that `--fuzz-seeds` names."""
    text = pytestconfig.getoption("--fuzz-seeds")
    start, colon, stop = text.partition(":")
    if not (colon and start.isdecimal() and stop.isdecimal() and int(start) < int(stop)):
        raise pytest.UsageError(f"expected --fuzz-seeds START:STOP, got {text!r}")
    return range(int(start), int(stop))
