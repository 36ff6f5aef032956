"""``--model vllm``: log-probabilities and texts by vLLM, which computes a beginning that many requests share once."""
