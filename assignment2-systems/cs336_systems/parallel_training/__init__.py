"""The training program of assignment 1, spread over processes by any strategy of this package."""
