"""Rank, measure, learn: the engine that asks and is told, its policy, and the loop that measures."""
