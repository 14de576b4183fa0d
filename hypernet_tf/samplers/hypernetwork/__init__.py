"""The hypernetwork: z -> codes of filters -> weights."""
