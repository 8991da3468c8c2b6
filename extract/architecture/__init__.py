"""Architecture of models: what their configuration says, and what running a small model of it shows.

May import: data.
Start reading at small_model.py, architecture_of; then discover.py.
"""
