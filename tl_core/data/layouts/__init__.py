"""Layouts of labelled images, one file each; `tl_core.data.specs` has the table of them."""
