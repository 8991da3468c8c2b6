"""Recipe settings as frozen dataclasses, and loading of recipe files; no torch.

May import: data, data.corpora, data.language, data.plan, data.remote, data.settings.
Start reading at recipe.py, Recipe.
"""
