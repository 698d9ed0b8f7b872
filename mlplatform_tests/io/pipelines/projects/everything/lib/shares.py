class ShareOfTenure:
    def __init__(self, cap: float = 1.0) -> None:
        self.cap = cap

    def fit(self, frame, target):
        return self

    def transform(self, frame):
        return frame


def paid(frame):
    return frame["total_charges"] >= 0
