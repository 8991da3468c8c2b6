"""Proofs: how texts may share a forward pass of a kind of model, the self-check of a run, and reading back.

May import: data, data.plan, data.remote, data.store, extract.architecture, extract.attention, extract.backbones,
extract.capture, extract.tokenization.
Start reading at proof.py, on_fastest_road; then self_check.py, SelfCheck.
"""
