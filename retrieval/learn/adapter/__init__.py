"""Light parts over the frozen towers of any model: ``anyseek learn adapter``.

The modules, in the order in which data flows:

``request``   what is asked for
``material``  what is learned from: captioned files, or folders that are classes
``kept``      vectors of files and texts by the base model, computed once
``data``      both together: vectors in two splits
``measures``  places of right answers, recall
``heads``     linear and MLP heads that start as the identity (torch)
``keys``      the cache of Tip-Adapter, and its fold into the query's side (numpy)
``fitting``   relevance on the validation split
``training``  epochs, early stop, the search of a rate (torch)
``methods``   trains, chooses, mixes with the frozen model
``contexts``  vectors before the words of a text tower (torch)
``card``      the folder that is written
``adapter``   all of it in one call
"""
