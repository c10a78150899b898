"""The search for the best tree: which configuration of sparsity, clusters, epochs and the like a model bears.

A trial is one configuration of the whole tree. What proposes trials is Optuna; what they share is trained once. The
validation split drives the search, the gate decides on the test split, which no proposal has ever seen.
"""
