"""Real models under every transform: what comes out is right, or a refusal that is written down.

`make test-zoo` runs these, with the libraries of requirements-zoo.txt.
"""

import fnmatch
import functools

import pytest
from _children import outcomes, server
from _refusals import REFUSALS
from _zoo import MODELS, QUICK
from run_one import NAMES

context = functools.cache(server)


def refusal(name, check):
    """What the message has to contain where the check is known to raise."""
    for pattern, message in REFUSALS.get(name, {}).items():
        if fnmatch.fnmatchcase(check, pattern):
            return message
    return None


def complaint(name, check, outcome, why):
    expected = refusal(name, check)
    if outcome == "raises" and why.startswith("plain autograd too"):
        return None
    if outcome == "raises" and expected is not None and expected in why:
        return None
    if outcome == "right" and expected is None:
        return None
    known = f" (known to raise: {expected})" if expected else ""
    return f"{check}: {outcome} {why}{known}"


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in MODELS]
)
def test_model(name, record_property):
    found = outcomes(context(), "_zoo", name, NAMES)
    record_property("zoo", [outcome for outcome, _ in found.values()])
    complaints = [complaint(name, check, *found[check]) for check in NAMES]
    assert not any(complaints), "\n".join(["", *filter(None, complaints)])


def test_a_death_has_a_name_and_is_outlived():
    found = outcomes(context(), "_broken", "dies", ["jvp float32", "jvp"])
    assert found == {"jvp float32": ("died", "SIGSEGV"), "jvp": ("right", "")}


def test_a_hang_ends():
    found = outcomes(context(), "_broken", "hangs", ["jvp float32", "jvp"], seconds=10)
    assert found == {"jvp float32": ("died", "no answer for 10 s"), "jvp": ("right", "")}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wrong", "off by"),
        ("keeps", "another value afterwards"),
        ("freezes", "requires_grad of a parameter has changed"),
    ],
)
def test_what_is_not_right_is_seen(name, message):
    found = outcomes(context(), "_broken", name, ["jvp float32"])
    assert found["jvp float32"][0] == "wrong"
    assert message in found["jvp float32"][1]


def test_every_refusal_names_a_model_and_a_check():
    for name, refusals in REFUSALS.items():
        assert name in MODELS
        for pattern in refusals:
            assert any(fnmatch.fnmatchcase(check, pattern) for check in NAMES), pattern
