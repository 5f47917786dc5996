"""Hold foundation models; a module of this folder takes part by what it defines (registry.py), not by its name.

- A door, for names of one form such as `hf:FOLDER`, has a class `Door(Source)`; source.py says what a Source provides.
- A family, a kind of model behind `hf:FOLDER`, has `MODELS`, {model_type in config.json: class name in transformers};
  `block_class(config)`, which returns the class of its blocks, with `PLACES` (graft.py); and `convert(model, extractor,
  name, digest)`, which returns an `Upstream` (base.py). It may have `OPTIONS`, settings over those of config.json,
  `OPTIONAL`, weights or parts that a checkpoint may lack, and `PADS`, whether there is a form `hf_padded:FOLDER`.
  CONTRIBUTING.md, "Adding an upstream family", walks through one.
- Any module may have `STAND_INS`, {class: subclass that computes the same and can be traced}, for `hff-export`.
"""
