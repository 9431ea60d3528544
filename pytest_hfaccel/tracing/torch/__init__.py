"""Running models on fake tensors and recording what they do. All of it imports torch: import these files late."""
