"""Measuring: per-example columns, numbers with intervals, tables and a report. Handed attacks and certifiers, imports none.

columns    evaluator, columns, unstack, contradictions: one row an example
curves     curve: robust and certified against eps, in one compile
intervals  wilson, clopper_pearson, t_interval, newcombe; mcnemar, paired_difference, holm
metrics    clean, robust, certified -> accuracy, gap, over_seeds, calibration_error
"""
