#!/usr/bin/env bash
# Runs the tests, writes test_results.xml, and makes the archive that is handed to a grader.
# Arguments go to pytest. The exit code is that of the tests; the archive is made either way.
set -uo pipefail
cd "$(dirname "$0")"
rm -f test_results.xml  # never hand in an earlier run's results
uv run pytest --junitxml=test_results.xml "$@"
tests_status=$?
uv run python -m cs336_basics.submission . || exit 1
exit $tests_status
