"""Stage one: a frozen backbone runs over texts once. The only package that loads a language model."""
