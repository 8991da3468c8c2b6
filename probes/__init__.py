"""Stage two: probes trained on cached latents, their evaluation and reports; never loads a language model.

May import: see its sub-packages.
Start reading at experiments/run.py, run_recipe; recipes/ has one experiment a file.
"""
