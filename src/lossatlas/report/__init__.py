"""From records to statistics, tables, figures and sentences.

Nothing here trains or knows torch: a page shows what the tables in ``results/<study>/`` say.
"""
