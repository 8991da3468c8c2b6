"""Fine-tuning: the blocks of a backbone above a cut as a trainable module, over texts of unequal length.

May import: data, data.device, data.plan, data.remote, extract.architecture, extract.attention, extract.backbones,
extract.capture, extract.proofs.
Start reading at finetuned_backbone.py, FinetunedBackbone.
How a model is cut is in cut_model.py, and the proof that it may be in cut_proof.py.
"""
