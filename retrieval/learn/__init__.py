"""Training of joint picture and text towers on a folder of captioned pictures.

Nothing here is needed to index or to search. The modules, in the order in which data flows:

``recipe``      every number of the training, read from ``recipe.toml``
``data``        captioned pictures and their random views
``vocabulary``  class names and names of things in several languages
``backbone``    EfficientNet-Lite with its ImageNet weights, cut in two (torch)
``features``    what stays frozen is computed once: picture activations, sentence features
``losses``      contrastive, distillation and alignment losses (torch)
``draws``       which of its texts stands for a picture in a step (torch)
``loop``        steps, schedule, average, early stop and checkpoints of every training (torch)
``train``       heads, a teacher, and the backbone's last blocks (torch)
``export``      ONNX, npz and TOML files that the runtime loads
``calibration`` cosines into the probability of a match
``bundled``     all of it in one call
``adapter``     light parts over the frozen towers of any model, by the same loop
"""
