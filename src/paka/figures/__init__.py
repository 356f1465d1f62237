"""Figures: functions of plain arrays that save a picture each, in one look."""
