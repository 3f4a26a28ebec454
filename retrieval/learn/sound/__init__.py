"""Training of the audio tower, by a teacher's opinions, into the space of a finished model.

Nothing here is needed to index or to search. The modules, in the order in which data flows:

``recipe``     every number of the training, read from ``recipe_sound.toml`` in the folder above
``synthetic``  noises and tones made by formula
``clips``      lists of sounds, and what student and teacher hear of them
``teacher``    an AudioSet classifier that is asked for its opinion (torch)
``mixes``      mixtures of sounds, made as they are needed
``words``      what sounds are called, and where that lies in the text space
``student``    the network that is trained, and its head (torch)
``distil``     the network's training, stage by stage, to do as the teacher does (torch)
``placing``    the head's training, on sounds alone (torch)
``bundled``    all of it in one call
``card``       relevances, mean vectors and identity of the whole model
"""
