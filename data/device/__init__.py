"""Devices: copies to them and back, what their memory holds, and work on threads beside them; loads torch.

May import: nothing else here.
Start reading at transfer.py, to_device; then pipeline.py, Pipeline.
"""
