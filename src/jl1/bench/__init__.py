"""`jl1 bench`: the exact Jacobian step measured beside its peers, on one core."""
