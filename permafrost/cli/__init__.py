"""The command line: commands, options, what they print, exit codes.

May import: data, data.corpora, data.latents, data.readers, data.remote, data.settings, data.store, extract.backbones,
extract.distributed, permafrost, permafrost.batches, permafrost.display, permafrost.scaling, probes.config,
probes.prediction, probes.reports, probes.results, probes.search.
Start reading at main.py, app.
The options that commands share are in options.py.
"""
