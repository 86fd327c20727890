"""Reading web archives: WARC, WET and WAT files, whole or damaged."""
