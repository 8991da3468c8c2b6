"""Architecture of models: what their configuration says, and what running a small model of it shows.

May import: data.
Start reading at architecture.py, architecture_of; then discover.py.
"""
