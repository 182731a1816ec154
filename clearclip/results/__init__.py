"""From results to what people read: the workbook, the paper's tables beside the published figures."""
