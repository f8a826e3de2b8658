"""Numbers from finished trials: pure functions over numbers and matrices, no input or output.

A matrix of losses has a row for each run (seed) and a column for each task; lower is better throughout.
"""

from agileact.study.statistics.paired import Difference as Difference
from agileact.study.statistics.paired import EffectSize as EffectSize
from agileact.study.statistics.paired import Typical as Typical
from agileact.study.statistics.paired import effect_size as effect_size
from agileact.study.statistics.paired import holm as holm
from agileact.study.statistics.paired import paired_difference as paired_difference
from agileact.study.statistics.paired import sign_flip_test as sign_flip_test
from agileact.study.statistics.paired import signed_rank as signed_rank
from agileact.study.statistics.power import detectable as detectable
from agileact.study.statistics.power import smallest_effect as smallest_effect
from agileact.study.statistics.sensitivity import RateRange as RateRange
from agileact.study.statistics.sensitivity import expected_best as expected_best
from agileact.study.statistics.sensitivity import rate_range as rate_range
from agileact.study.statistics.summary import Summary as Summary
from agileact.study.statistics.summary import pairs_in_same_order as pairs_in_same_order
from agileact.study.statistics.summary import rank_correlation as rank_correlation
from agileact.study.statistics.summary import summarise as summarise
from agileact.study.statistics.tasks import Estimate as Estimate
from agileact.study.statistics.tasks import Profile as Profile
from agileact.study.statistics.tasks import Ranking as Ranking
from agileact.study.statistics.tasks import average_ranks as average_ranks
from agileact.study.statistics.tasks import interquartile_mean as interquartile_mean
from agileact.study.statistics.tasks import performance_profile as performance_profile
from agileact.study.statistics.tasks import probability_of_improvement as probability_of_improvement
from agileact.study.statistics.times import TimesToLoss as TimesToLoss
from agileact.study.statistics.times import TimeToLoss as TimeToLoss
from agileact.study.statistics.times import common_target as common_target
from agileact.study.statistics.times import time_to_loss as time_to_loss
from agileact.study.statistics.verdict import Verdict as Verdict
from agileact.study.statistics.verdict import verdict as verdict
