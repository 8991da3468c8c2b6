"""Pretraining: a BERT or GPT-2 from scratch by transformers' Trainer, with its vocabulary and checkpoints.

May import: data, data.corpora, data.language, data.plan, extract.architecture, extract.backbones.
Start reading at pretrain.py, pretrain.
The model is built in pretrain.py, make_language_model.
"""
