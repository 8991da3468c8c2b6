"""Mutants: the code on which the truth of latents rests, changed in one place at a time, to see whether tests notice.

    python -m tests.mutants --mutants 300 --seed 0

Start reading at campaign.py, Campaign. The operators are those of cosmic-ray. Tests run in a copy of the tree.
"""
