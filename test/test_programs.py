"""Random programs under random nests of transforms, against plain autograd and loops.

Hypothesis chooses a seed for the generator and a nest, always the same ones; `make fuzz` goes on
from other seeds, on all cores. A wrong answer is printed as a few lines of Python: what makes them
few is `_program_shrink`, which knows what a program is.
"""

import random

import pytest
from _program_cases import random_case
from _program_check import check, examine, quiet
from _program_nests import NESTS, TRANSFORMS, order
from _program_shrink import shrunk
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

EVERY_TIME_THE_SAME = settings(
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
SEEDS = st.integers(0, 2**48)


def examine_program(seed, nest):
    """Fails on a wrong answer, with the program made small. A refusal is no failure here."""
    rng = random.Random(seed)
    case = random_case(rng, str(seed), nest)
    with quiet():
        wrong = [v for v in examine(case, rng) if v.kind == "wrong"]
        if wrong:
            case = shrunk(case, lambda smaller: check(smaller).kind == "wrong", seconds=5)
            raise AssertionError(f"{case.nest_name}: {wrong[0].detail}\n{case.source()}")


def nests_within(outermost):
    """Of order four at most: what is deeper takes `make fuzz`."""
    return [n for n in NESTS if n and n[0] == outermost and order(n) <= 4]


@pytest.mark.parametrize("depth", [1, 2])
def test_a_few_programs(depth):
    nests = [n for n in NESTS if len(n) == depth]

    @settings(EVERY_TIME_THE_SAME, max_examples=60)
    @given(SEEDS, st.sampled_from(nests))
    def run(seed, nest):
        examine_program(seed, nest)

    run()


@pytest.mark.slow
@pytest.mark.parametrize("outermost", TRANSFORMS)
def test_programs(outermost):
    @settings(EVERY_TIME_THE_SAME, max_examples=300)
    @given(SEEDS, st.sampled_from(nests_within(outermost)))
    def run(seed, nest):
        examine_program(seed, nest)

    run()
