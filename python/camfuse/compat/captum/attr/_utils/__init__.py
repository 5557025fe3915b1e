"""What attributions share."""
