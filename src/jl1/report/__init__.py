"""From the results of many runs to tables and figures with statistics, beside the paper's numbers; without JAX."""
