"""Each transform and each pair, under every kind of exit, keeps nothing. `make soak` is longer."""

import gc

import pytest
import torch
from _memory import EXACT
from soak import EXITS, NESTS, soak

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not EXACT, reason="bytes in use are known exactly with glibc only"),
]

CALLS = 30


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True, scope="module")
def nothing_old_is_collected():
    """It takes most of the time to look at what other tests have left behind, again and again."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.parametrize("exit_name", EXITS)
@pytest.mark.parametrize("nest", [n for n in NESTS if len(n) == 1], ids="-".join)
def test_a_transform_keeps_nothing(nest, exit_name):
    kept = soak(nest, exit_name, CALLS)
    assert not kept, kept


PAIRS = [n for n in NESTS if len(n) == 2]


@pytest.mark.parametrize("turn", range(len(EXITS)))
def test_a_pair_of_transforms_keeps_nothing(turn):
    """Each pair under one of the exits in turn; `make soak` takes all."""
    exit_name = list(EXITS)[turn]
    kept = {n: soak(n, exit_name, CALLS) for n in PAIRS[turn :: len(EXITS)]}
    assert {n: k for n, k in kept.items() if k} == {}
