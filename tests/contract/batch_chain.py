"""The exact mean response time of one batch server that takes all that wait: its Markov chain, solved by number.

The batch that follows one of b holds A requests, A Poisson with mean m = L (t0 + a b), and one when A = 0 (the next to arrive). So
batch sizes are a Markov chain. Of the A requests each waited half of the former service on average and shares its own batch's time.
(The chain of Y. Inoue, "Queueing analysis of GPU-based inference servers with dynamic batching: a closed-form characterization",
Performance Evaluation 147, 2021, section 3, for deterministic service times.)
"""

import numpy as np
from scipy.stats import poisson


def mean_s(rate_rps, base_s, item_s):
    """Mean response time; states above 12 deviations of the largest batch are cut off."""
    middle = rate_rps * base_s / (1 - rate_rps * item_s)
    states = int(middle + 12 * np.sqrt(middle + 1) / (1 - rate_rps * item_s) + 30)
    batch = np.arange(1, states + 1)
    service_s = base_s + item_s * batch
    mean = rate_rps * service_s
    step = poisson.pmf(batch[None, :], mean[:, None])
    step[:, 0] += np.exp(-mean)
    step[:, -1] += 1 - step.sum(axis=1)
    share = np.linalg.solve((step.T - np.eye(states) + 1.0), np.ones(states))  # share P = share and its sum is 1
    waits = mean * service_s / 2
    served = item_s * (mean**2 + mean) + base_s * mean + np.exp(-mean) * (base_s + item_s)
    return float(share @ (waits + served) / (share @ batch))
