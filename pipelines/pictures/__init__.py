"""The gallery's page and the contact sheet, with their thumbnails."""
