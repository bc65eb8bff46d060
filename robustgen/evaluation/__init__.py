"""Measuring: one row an example, numbers with intervals, tables and a report. Handed its attacks.

columns    evaluator, columns, unstack, contradictions: what a net predicts, under which attack, proved by what
curves     curve: robust and certified against the radius, in one compile
distances  quantile, median, security_curve: how far inputs must move, from one run of a minimal-norm attack
radii      held_radius, certified_accuracy, average_certified_radius, certified_curves: from certified radii
intervals  wilson, clopper_pearson, t_interval, newcombe; mcnemar, paired_difference, holm
paired     mcnemar_mid_p, newcombe_paired, paired_bootstrap: two accuracies on the same examples
comparison Side, compare, pairwise; exact_test, mid_p_test, bootstrap_test, seeds_test (tables: comparison_tables)
sides      methods, nets, attacks: the sides of a comparison, from folders that were measured
metrics    clean, robust, certified -> accuracy, gap, over_seeds, gap_over_seeds, calibration_error
results    Run, Examples; adversarial_examples, save, load, results_csv
summary    summarize: runs -> rows, Pareto front, significance
verdict    what a summary says in words
tables     console, markdown, latex
report     write: report.html, table.md, table.tex, results.csv, figures
"""
