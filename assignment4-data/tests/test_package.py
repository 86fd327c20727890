"""The package is installed and documented; its suite arrives with its implementation."""

import cs336_data


def test_package_says_what_it_is():
    assert cs336_data.__doc__.startswith("CS336 assignment 4")
