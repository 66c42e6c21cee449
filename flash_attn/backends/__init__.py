"""One module a backend; dispatch imports each on first use."""
