"""Processes of our own: requests in, answers out, killed when they hang; one lock per device."""
