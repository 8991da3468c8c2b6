"""Attention over texts that lie back to back in a row, which is registered with transformers.

May import: data, data.device.
Start reading at varlen.py, register_attention.
"""
