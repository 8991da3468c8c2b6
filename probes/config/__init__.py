"""Every setting of a recipe as a frozen dataclass, and loading of recipes; no torch.

May import: data, data.corpora, data.language, data.store.
Start reading at recipe.py, Recipe.
"""
