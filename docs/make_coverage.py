"""Writes docs/coverage/: what every operator of PyTorch's `op_db` does under functx and torch.func.

python docs/make_coverage.py batching
python docs/make_coverage.py forward_ad
"""

import argparse

import _coverage_batching
import _coverage_forward_ad
from _coverage import DOCS, run

PAGES = {"batching": _coverage_batching, "forward_ad": _coverage_forward_ad}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", choices=PAGES)
    name = parser.parse_args().page
    page = PAGES[name]
    path = DOCS / "coverage" / f"{name}.md"
    path.parent.mkdir(exist_ok=True)
    path.write_text(page.page(run(page.SWEEPS)))


if __name__ == "__main__":
    main()
