"""The page of a run: responses as text, coloured by the weights of their tokens."""
