"""Tasks on embeddings of texts: similarity, reranking, retrieval, clusters, a linear probe."""
