"""A pytest plugin: the pure modules are covered to the last branch, or the run fails.

Beside pytest-cov's one floor for all (`fail_under` in pyproject.toml), the modules that
only decide have one of their own: 100 %. Loaded by scripts/test for a run of all tests.
"""

from __future__ import annotations

import io

import coverage
import pytest

PURE = (
    "blocks",
    "entries",
    "known",
    "ladder",
    "listing",
    "lookahead",
    "order",
    "pages",
    "ranges",
    "stretch",
    "two_ways",
    "window",
)

_report = ""


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run when a branch of a pure module was not taken.

    pytest-cov has saved its data by now: it does so at the end of the run's loop, and of those
    of the processes that pytest-xdist runs.
    """
    if hasattr(session.config, "workerinput"):  # one of those processes
        return
    global _report  # noqa: PLW0603 - a plugin module is its own single instance
    cov = coverage.Coverage()
    cov.load()
    out = io.StringIO()
    try:
        total = cov.report(
            include=[f"s3mount/*/{name}.py" for name in PURE],
            file=out,
            show_missing=True,
            skip_covered=True,
        )
    except coverage.exceptions.NoDataError:
        total = 0.0
        out.write("no test ran any of them\n")
    if total < 100:
        _report = out.getvalue()
        if session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was not covered, before pytest's own last line."""
    if _report:
        terminalreporter.section("ERROR: pure modules need 100 % coverage", red=True)
        terminalreporter.write(_report)
