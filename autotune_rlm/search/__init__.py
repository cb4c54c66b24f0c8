"""Rank, measure, learn: the engine with ask and tell, its policy, and the loop that measures."""
