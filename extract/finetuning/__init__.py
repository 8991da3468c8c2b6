"""Fine-tuning: the blocks of a backbone above a cut as a trainable module, over texts of unequal length.

May import: data, data.store, extract.architecture, extract.backbones, extract.capture.
Start reading at finetuned_backbone.py, FinetunedBackbone.
Padding inside the attention of fine-tuned blocks is in varlen.py.
"""
