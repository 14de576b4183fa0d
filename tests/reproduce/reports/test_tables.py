"""The one writer of tables."""

from reproduce.reports.tables import html_table, markdown_table

HEADER = ["", "accuracy (%)", "a < b"]
ROWS = [["sgd", "91.23", ""], ["mine & yours", "90.00", "1 ± 2"]]


def test_markdown():
    assert markdown_table(HEADER, ROWS) == (
        "|  | accuracy (%) | a < b |\n"
        "| --- | ---: | ---: |\n"
        "| sgd | 91.23 |  |\n"
        "| mine & yours | 90.00 | 1 ± 2 |"
    )


def test_html_escapes_its_cells():
    assert html_table(HEADER, ROWS) == (
        "<table><tr><th></th><th>accuracy (%)</th><th>a &lt; b</th></tr>"
        '<tr><td>sgd</td><td class="n">91.23</td><td class="n"></td></tr>'
        '<tr><td>mine &amp; yours</td><td class="n">90.00</td><td class="n">1 ± 2</td></tr>'
        "</table>"
    )
