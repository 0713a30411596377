"""What a job reports: the versioned schema, its canonical bytes, plots and the HTML page."""
