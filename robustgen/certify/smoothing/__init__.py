"""Randomized smoothing (Cohen et al. 2019): counts of votes under noise, and what they prove in L2.

    drawn = plan(sigma=0.25, num_selection=100, num_samples=100_000)
    found = certify(sample(net, x, drawn, seed=0, journal=path), drawn, alpha=0.001)
"""

from robustgen.certify.smoothing.bounds import ABSTAIN as ABSTAIN
from robustgen.certify.smoothing.bounds import Smoothed as Smoothed  # prediction, p_lower, radius
from robustgen.certify.smoothing.bounds import certify as certify  # votes -> Smoothed
from robustgen.certify.smoothing.bounds import lower_confidence_bound as lower_confidence_bound
from robustgen.certify.smoothing.bounds import margin_lower as margin_lower
from robustgen.certify.smoothing.bounds import predict as predict  # votes -> class, or ABSTAIN
from robustgen.certify.smoothing.certifier import SmoothedCertifier as SmoothedCertifier
from robustgen.certify.smoothing.certifier import smoothing as smoothing  # CERTIFY inside a compiled program
from robustgen.certify.smoothing.denoised import denoised as denoised  # a denoiser before a frozen classifier
from robustgen.certify.smoothing.run import sample as sample  # votes of a data set, resumable
from robustgen.certify.smoothing.votes import Plan as Plan
from robustgen.certify.smoothing.votes import Votes as Votes
from robustgen.certify.smoothing.votes import count as count  # votes of one example, pure
from robustgen.certify.smoothing.votes import plan as plan
