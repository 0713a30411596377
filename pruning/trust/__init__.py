"""How far the numbers of a report can be trusted, assessed once, at the dense weights.

`checks` asks whether the assumptions of the theory hold, `bootstrap` how far the saliencies depend
on the samples, `ladder` up to which sparsity the quadratic model predicts the loss.
"""
