"""A study as one HTML file that needs nothing else: one section a module, and a page that serves it while it runs."""
