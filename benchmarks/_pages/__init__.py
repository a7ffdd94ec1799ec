"""The pages that show one benchmark each: result files in, tables by their marks and figures out."""
