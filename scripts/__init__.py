"""The demo, and the drawn scenes that it and the tests run on. No part of the installed package."""
