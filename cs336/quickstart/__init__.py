"""`cs336 quickstart`: from a text to a model that writes, within a few minutes and with every step explained."""
