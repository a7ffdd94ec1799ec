"""What makes the site of the documents: pages generated from the code, and links that lead somewhere there."""
