"""Model families, one file each, and the folders that models are stored in."""

# The families by the kind that a card names. Modules are imported when a model is loaded, so
# that reading a card needs no torch.
AUTOENCODERS = {
    "convolutional": "hashsearch.models.convolutional:ConvolutionalAutoencoder",
    "dense": "hashsearch.models.dense:DenseAutoencoder",
    "transform": "hashsearch.models.transform:TransformAutoencoder",
}
