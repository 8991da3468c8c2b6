"""Capture: hidden states of all layers in one forward pass, packing and padding, pooling, the form that is stored.

May import: data, data.device, data.plan, data.store, extract.architecture, extract.attention, extract.backbones,
extract.tokenization.
Start reading at packing.py, make_packs; then forward.py, capture.
"""
