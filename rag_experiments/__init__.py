"""Train and compare the two halves of a retrieval-augmented QA system from one command line."""

__version__ = "0.2.0"
