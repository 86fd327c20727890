"""The package is installed and documented; its suite arrives with its implementation."""

import cs336_scaling


def test_package_says_what_it_is():
    assert cs336_scaling.__doc__.startswith("CS336 assignment 3")
