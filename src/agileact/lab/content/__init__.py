"""What the tabs of the lab show; knows no page."""
