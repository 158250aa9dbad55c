"""Reports: results as one HTML page that needs neither a network nor a server; HTML for notebooks."""

from camanim.report.notebook import notebook_html
from camanim.report.page import write_report

__all__ = ["notebook_html", "write_report"]
