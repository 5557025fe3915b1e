"""What the methods and their users share: images, targets, reshapes, principal components."""
