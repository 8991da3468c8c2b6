"""Entry point of a checkout: permafrost's Python interface; its command line if run as a script."""

from permafrost.api import ablate, extract, load, pretrain, report, run, similarity, study, train
from permafrost.cli.main import main

__all__ = ["ablate", "extract", "load", "main", "pretrain", "report", "run", "similarity", "study", "train"]

if __name__ == "__main__":
    main()
