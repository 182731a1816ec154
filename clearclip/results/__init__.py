"""From runs to what people read: records, the published figures, tables, the workbook. Plain data in, plain data out:
nothing here loads a config, a model or a method.
"""
