"""A real model and real texts that work offline, and the demonstration built on them."""
