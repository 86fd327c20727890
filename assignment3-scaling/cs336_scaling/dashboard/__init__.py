"""The training API's web page: budget, queue, experiments, loss curves, isoFLOP curves, final submission."""
