"""Images: where they come from, how they are prepared, and how training reads them."""
