"""What is known to raise: for each model, patterns of checks and what the message has to contain."""

REFUSALS: dict = {}
