"""No argument ends the process: what PyTorch or functx divides by, and is zero, is an error."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from _sizes_of_zero import CASES

SCRIPT = Path(__file__).with_name("_sizes_of_zero.py")


@pytest.fixture(scope="module")
def outcomes():
    """What became of each case: the last words of the child that ran it, or how it ended."""
    results = {}
    names = list(CASES)
    while names:
        child = subprocess.run(
            [sys.executable, "-W", "ignore", SCRIPT],
            input="\n".join(names),
            capture_output=True,
            text=True,
        )
        lines = child.stdout.splitlines()
        for said, then in zip(
            lines[::2], [*lines[1::2], f"dies: {child.returncode}"], strict=False
        ):
            results[said.removeprefix("at ")] = then
        assert lines, child.stderr
        names = names[len(lines[::2]) :]
    return results


@pytest.mark.parametrize("name", CASES)
def test_process_lives(outcomes, name):
    assert not outcomes[name].startswith("dies")


@pytest.mark.parametrize(
    "name", [n for n in CASES if re.search("conv.*of no (groups|outputs)|of no heads, |fwd", n)]
)
def test_is_an_error(outcomes, name):
    if not name.startswith(("attention", "backward of")):
        assert outcomes[name].startswith("raises"), outcomes[name]


def test_messages_name_the_argument(outcomes):
    assert "groups" in outcomes["conv2d of no groups, vmap of (None, 0)"]
    assert "num_heads=0" in outcomes["_native_multi_head_attention of no heads, jvp"]
    assert "without queries or keys" in outcomes["flash attention of no keys, jvp"]
    assert "without heads" in outcomes["flash attention of no heads, vmap of (0, 0)"]
