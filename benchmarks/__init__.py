"""Speed, as ratios measured side by side in one run. Not tests: these machines are noisy, and nothing here gates."""
