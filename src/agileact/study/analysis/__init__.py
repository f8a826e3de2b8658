"""Numbers from finished trials: pure functions over numbers and matrices, no input or output.

A matrix of losses has a row for each run (seed) and a column for each task; lower is better throughout.
"""

from agileact.study.analysis.intervals import student as student
from agileact.study.analysis.intervals import wilson as wilson
from agileact.study.analysis.paired import Difference as Difference
from agileact.study.analysis.paired import EffectSize as EffectSize
from agileact.study.analysis.paired import effect_size as effect_size
from agileact.study.analysis.paired import holm as holm
from agileact.study.analysis.paired import paired_difference as paired_difference
from agileact.study.analysis.paired import sign_flip_test as sign_flip_test
from agileact.study.analysis.power import smallest_effect as smallest_effect
from agileact.study.analysis.summary import Summary as Summary
from agileact.study.analysis.summary import pairs_in_same_order as pairs_in_same_order
from agileact.study.analysis.summary import rank_correlation as rank_correlation
from agileact.study.analysis.summary import summarise as summarise
from agileact.study.analysis.tasks import Estimate as Estimate
from agileact.study.analysis.tasks import Ranking as Ranking
from agileact.study.analysis.tasks import average_ranks as average_ranks
from agileact.study.analysis.tasks import interquartile_mean as interquartile_mean
from agileact.study.analysis.tasks import probability_of_improvement as probability_of_improvement
from agileact.study.analysis.times import TimesToLoss as TimesToLoss
from agileact.study.analysis.times import TimeToLoss as TimeToLoss
from agileact.study.analysis.times import common_target as common_target
from agileact.study.analysis.times import time_to_loss as time_to_loss
from agileact.study.analysis.typical import Typical as Typical
from agileact.study.analysis.typical import signed_rank as signed_rank
from agileact.study.analysis.verdict import Verdict as Verdict
from agileact.study.analysis.verdict import verdict as verdict
