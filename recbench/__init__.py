"""recbench: benchmark sequential recommenders, above all those that reason in latent space before they rank."""

__version__ = "0.1.0"
