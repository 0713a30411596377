"""Importing this compiles the templates of the page, which takes ten times as long as a page.

For processes that will write one and have nothing to do until then.
"""

from pruning.report.html import environment

for _name in environment().list_templates(extensions=["html"]):
    environment().get_template(_name)
