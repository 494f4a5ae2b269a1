"""The evaluation of MoA Mini: a pipeline, cases, judge networks, and the measures of what it generates."""
