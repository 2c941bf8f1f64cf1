"""Pages, figures and tables of results, made from records alone."""
