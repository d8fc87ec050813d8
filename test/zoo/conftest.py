"""Adds up what the models' tests found."""

import collections


def pytest_terminal_summary(terminalreporter):
    counts, models = collections.Counter(), 0
    for reports in terminalreporter.stats.values():
        for report in reports:
            for key, found in getattr(report, "user_properties", ()):
                if key == "zoo" and report.when == "call":
                    counts.update(found)
                    models += 1
    words = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
    terminalreporter.write_line(f"zoo: {models} models, {counts.total()} checks: {words}")
