"""The parts of the dock: thin Qt views of the models."""
