"""The served half: bundles, recommendations, import of published weights. It knows nothing of training."""
