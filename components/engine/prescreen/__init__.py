"""What leaves will weigh and cost, before anything is trained.

Size and NPU latency follow from the structure of the weights, that is, from which of them are zero and which are equal,
and hardly from their values. So masking and clustering the baseline's own weights, and converting that, says in seconds
what the trained leaves will come to. What they will still know, only training says.
"""
