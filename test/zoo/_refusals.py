"""What is known to raise: for each model, patterns of checks and a part of the message."""

REFUSALS: dict = {}
