"""Architecture of models: what their configuration says, and what running a small model of it shows.

May import: data, data.settings.
Start reading at lookup.py, architecture_of; then small_model.py and discover.py.
"""
